package rules

import "testing"

// FuzzSocket: whatever the kernel tells of a socket is read or passed over.
func FuzzSocket(f *testing.F) {
	f.Add(make([]byte, 72))
	f.Add(append(append([]byte{10}, make([]byte, 71)...), 8, 0, 15, 0, 1, 2, 3, 4))
	f.Fuzz(func(t *testing.T, in []byte) {
		if s, ok := parseSocket(in); ok && (!s.local.IsValid() || !s.remote.IsValid()) {
			t.Errorf("socket %+v", s)
		}
	})
}
