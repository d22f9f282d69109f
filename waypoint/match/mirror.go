package match

import "github.com/ambit-mesh/ambit/internal/mesh"

// Mirrored throws the dice whether a mirror gets a copy of this request, with
// rnd giving a number from 0 to n-1. A mirror without a share (0 of 0) gets
// all, one whose backend is invalid none.
func Mirrored(m *mesh.Mirror, rnd func(n int) int) bool {
	switch {
	case m.Backend.Invalid != "" || m.Numerator < 0:
		return false
	case m.Denominator <= 0:
		return m.Numerator == 0
	case m.Numerator == 0:
		return false
	}
	return m.Numerator >= m.Denominator || rnd(int(m.Denominator)) < int(m.Numerator)
}
