package zds

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzMessages: whatever comes over the socket, what is accepted can be sent and
// comes back the same, and nothing longer than a message is.
func FuzzMessages(f *testing.F) {
	for _, r := range []Request{{Kind: Add, Pod: pod}, {Kind: Keep, Pod: Pod{UID: "u-1"}}, {Kind: Del, Pod: Pod{UID: "u-1"}}, {Kind: SnapshotSent}} {
		b, err := marshalRequest(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, marshal := range []func() ([]byte, error){marshalHello, func() ([]byte, error) { return marshalAck("no") }} {
		b, err := marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if r, err := unmarshalRequest(in); err == nil {
			b, err := marshalRequest(r)
			if err != nil {
				if len(in) <= maxMessage/2 {
					t.Fatalf("%+v was read and cannot be written: %v", r, err)
				}
				return
			}
			again, err := unmarshalRequest(b)
			if err != nil || !cmp.Equal(r, again) {
				t.Errorf("%+v came back as %+v, %v", r, again, err)
			}
		}
		if reason, err := unmarshalAck(in); err == nil {
			b, err := marshalAck(reason)
			if err != nil || len(b) > maxMessage {
				t.Fatalf("an answer of %d bytes: %v", len(b), err)
			}
			if again, err := unmarshalAck(b); err != nil || (again == "") != (reason == "") {
				t.Errorf("%q came back as %q, %v", reason, again, err)
			}
		}
		unmarshalHello(in)
	})
}
