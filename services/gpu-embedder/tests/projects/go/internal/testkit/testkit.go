package testkit

import "testing"

func Equal(t *testing.T, one, other any) {
	if one != other {
		t.Fatal(one, other)
	}
}
