package ca

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// TestANodeWhoseClockIsTenMinutesOff takes what is signed now, from a root that
// was made now, for valid.
func TestANodeWhoseClockIsTenMinutesOff(t *testing.T) {
	a := must(NewAuthority(must(NewRoot("x", epoch)), at(epoch)))
	chain, err := a.Sign(request(newKey(), "spiffe://a/ns/b/sa/c"), spiffe.ID{TrustDomain: "a", Namespace: "b", ServiceAccount: "c"}, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []time.Duration{-10 * time.Minute, 0, 10 * time.Minute} {
		verify(t, chain, epoch.Add(off), x509.ExtKeyUsageServerAuth)
	}
}
