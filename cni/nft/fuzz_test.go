package nft

import (
	"testing"

	"github.com/mdlayher/netlink"
)

// FuzzAnswer: whatever the kernel answers, it is read or refused; and what is
// compared with itself is the same.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 8, 0, 2, 0, 'c', 0, 0, 0})
	f.Add([]byte{1, 0, 0, 0, 12, 0, 4, 0x80, 8, 0, 1, 0, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, in []byte) {
		rawRuleFrom(netlink.Message{Data: in})
		attrs, err := netlink.UnmarshalAttributes(in)
		if err != nil {
			return
		}
		kinds := map[uint16]bool{}
		for _, a := range attrs {
			if kinds[a.Type&0x3fff] { // nobody of us sends one twice
				return
			}
			kinds[a.Type&0x3fff] = true
			if a.Type&0x8000 != 0 {
				return // its inside may be anything
			}
		}
		if same, err := sameAttributes(in, in); err != nil || !same {
			t.Errorf("%x differs from itself: %v", in, err)
		}
	})
}
