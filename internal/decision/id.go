package decision

import "math/rand/v2"

// alphabet is base 32 without the letters that are misread for others
// (Crockford's), since people read ids to each other.
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

const idLength = 8

// NewID makes a decision's id. Of 40 random bits, two equal ones among the some
// thousand decisions that a mesh remembers are unlikely; an id is a name and
// protects nothing.
func NewID() string {
	var b [idLength]byte
	for bits, i := rand.Uint64(), 0; i < idLength; i++ {
		b[i] = alphabet[bits&31]
		bits >>= 5
	}
	return string(b[:])
}

// Adopt is the id that a peer sends, or a new one if that is none.
func Adopt(id string) string {
	if ValidID(id) {
		return id
	}
	return NewID()
}

// ValidID reports whether s has the form of an id. What a peer sends has to be
// asked, before it gets into a log.
func ValidID(s string) bool {
	if len(s) != idLength {
		return false
	}
	for i := range idLength {
		if c := s[i]; c < '0' || c > 'z' || c > '9' && c < 'a' || c == 'i' || c == 'l' || c == 'o' || c == 'u' {
			return false
		}
	}
	return true
}
