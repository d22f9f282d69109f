package table

import (
	"slices"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// keepKeys takes keys over from the last version of an authentication where the
// new one has none yet: a control plane that has just begun must not refuse all
// tokens while their issuer is out of order. Keys from another place, and those
// that are written down, are never taken over: to change the place is how their
// owner takes trust away.
func keepKeys(old, now *mesh.Authentication) *mesh.Authentication {
	if old == nil {
		return now
	}
	out := *now
	out.Tokens = slices.Clone(now.Tokens)
	for i := range out.Tokens {
		t := &out.Tokens[i]
		if t.Keys != "" || t.KeysFrom == "" {
			continue
		}
		for _, o := range old.Tokens {
			if o.Issuer == t.Issuer && o.KeysFrom == t.KeysFrom {
				t.Keys = o.Keys
			}
		}
	}
	return &out
}
