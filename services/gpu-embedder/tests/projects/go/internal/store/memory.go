package store

// Memory forgets.
type Memory map[string]string

func (m Memory) Get(key string) string { return m[key] }
