package certs

import (
	"crypto/x509"
	"encoding/binary"
	"testing"
	"time"
)

// shown is a chain of certificates that differ by a number.
func shown(numbers ...uint32) (chain []*x509.Certificate) {
	for _, n := range numbers {
		chain = append(chain, &x509.Certificate{Raw: binary.BigEndian.AppendUint32(nil, n)})
	}
	return chain
}

func TestWhatIsRememberedOfAPeer(t *testing.T) {
	begin := time.Date(2026, 11, 26, 5, 0, 0, 0, time.UTC)
	at := func(hours int) time.Time { return begin.Add(time.Duration(hours) * time.Hour) }
	ours, others := roots(shown(100)), roots(shown(100))
	chain := shown(1, 2)
	// The leaf is good from 1 to 20 o'clock, what is between to 15, the root from 3.
	verified := []*x509.Certificate{{NotBefore: at(1), NotAfter: at(20)}, {NotBefore: at(0), NotAfter: at(15)}, {NotBefore: at(3), NotAfter: at(90)}}
	var p proofs
	p.remember(proofOf(chain, ours), verified, ours)
	for _, tt := range []struct {
		sentence string
		chain    []*x509.Certificate
		roots    roots
		at       int
		known    bool
	}{
		{"the same again", shown(1, 2), ours, 4, true},
		{"the very last moment", chain, ours, 15, true},
		{"before the root is good", chain, ours, 2, false},
		{"after what is between has ended", chain, ours, 16, false},
		{"another leaf", shown(3, 2), ours, 4, false},
		{"another certificate between", shown(1, 3), ours, 4, false},
		{"nothing between", shown(1), ours, 4, false},
		{"the same bytes in other certificates", []*x509.Certificate{{Raw: append(chain[0].Raw, chain[1].Raw...)}}, ours, 4, false},
		{"to another list of roots, though of the same", chain, others, 4, false},
		{"to the beginning of a list of roots", chain, append(ours[:1:1], ours...), 4, false},
		{"to no root", chain, nil, 4, false},
	} {
		if got := p.known(proofOf(tt.chain, tt.roots), at(tt.at)); got != tt.known {
			t.Errorf("%s: known %v, want %v", tt.sentence, got, tt.known)
		}
	}
	p.forget()
	if p.known(proofOf(chain, ours), at(4)) {
		t.Error("known after all was forgotten")
	}
}

func TestWhatIsRememberedOfPeersIsBounded(t *testing.T) {
	ours := roots(shown(0))
	now := time.Now()
	verified := []*x509.Certificate{{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}}
	var p proofs
	for n := range uint32(2 * maxProofs) {
		what := proofOf(shown(n), ours)
		p.remember(what, verified, ours)
		if !p.known(what, now) {
			t.Fatalf("the newest of %d is not remembered", n+1)
		}
	}
	if len(p.of) != maxProofs {
		t.Errorf("%d are remembered, want %d", len(p.of), maxProofs)
	}
}
