package sqlite

// #include <stdlib.h>
import "C"

import (
	"example.com/ferry/internal/drivers"
	"example.com/ferry/internal/store"
)

func init() { drivers.Register("sqlite", store.Memory{}) }
