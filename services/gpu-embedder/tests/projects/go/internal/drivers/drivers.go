package drivers

import "sync"

type Driver interface{ Get(key string) string }

var known sync.Map

func Register(name string, driver Driver) { known.Store(name, driver) }

func Find(name string) Driver { found, _ := known.Load(name); return found.(Driver) }
