package store

import "example.com/ferry/internal/drivers"

type Store struct{ driver drivers.Driver }

func Open(name string) *Store { return &Store{driver: drivers.Find(name)} }

func (s *Store) Get(key string) string { return s.driver.Get(key) }
