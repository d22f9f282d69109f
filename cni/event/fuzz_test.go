package event

import (
	"encoding/json"
	"testing"
)

// FuzzAddresses: what a plugin says of a sandbox's addresses is read, or refused
// as a whole.
func FuzzAddresses(f *testing.F) {
	f.Add([]byte(`{"PodName":"a","PodNamespace":"b","Netns":"/x","IPs":[{"Address":"10.1.2.3/24","Gateway":"10.1.2.1"},{"Address":"fd00::1/64"}]}`))
	f.Add([]byte(`{"IPs":[{"Address":"10.1.2.3"}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var add Add
		if json.Unmarshal(in, &add) != nil {
			return
		}
		all, err := add.Addresses()
		if err != nil && len(all) > 0 {
			t.Errorf("addresses %v beside %v", all, err)
		}
		for _, a := range all {
			if !a.IsValid() || a.Is4In6() {
				t.Errorf("address %v of %s", a, in)
			}
		}
	})
}
