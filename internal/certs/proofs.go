package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"
	"time"
)

// maxProofs bounds what is remembered of peers, some 200 bytes each: beyond it
// another one is forgotten, which costs its peer's next handshake the signatures.
const maxProofs = 4096

// proofs remember which chains lead to which roots, since a peer that makes many
// tunnels shows the same certificates every time. What may change between two
// handshakes is never remembered: whether a certificate is within its time,
// whether it has been revoked, and who is asked for are looked at each time. The
// zero value is ready, nil remembers nothing.
type proofs struct {
	mu sync.Mutex
	of map[proof]span
}

// proof is what was shown, and to whom: every byte of the chain, and the very
// list of roots. A list is never written to once it is in use, so that another
// one is at another place; the span keeps it there.
type proof struct {
	chain [sha256.Size]byte
	roots *(*x509.Certificate)
	count int
}

// span is the time in which all certificates of a chain are good, its root too.
type span struct {
	from, until time.Time
	roots       roots
}

func proofOf(chain []*x509.Certificate, r roots) proof {
	h := sha256.New()
	for _, c := range chain {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(c.Raw)))
		h.Write(size[:])
		h.Write(c.Raw)
	}
	p := proof{count: len(r)}
	h.Sum(p.chain[:0])
	if len(r) > 0 {
		p.roots = &r[0]
	}
	return p
}

// known reports whether the chain was seen to lead to the roots, and is good now.
func (p *proofs) known(what proof, now time.Time) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s, ok := p.of[what]
	return ok && !now.Before(s.from) && !now.After(s.until)
}

// remember takes a verified chain, from the leaf to the root.
func (p *proofs) remember(what proof, verified []*x509.Certificate, r roots) {
	if p == nil {
		return
	}
	s := span{roots: r}
	for i, c := range verified {
		if i == 0 || c.NotBefore.After(s.from) {
			s.from = c.NotBefore
		}
		if i == 0 || c.NotAfter.Before(s.until) {
			s.until = c.NotAfter
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[proof]span{}
	}
	for old := range p.of {
		if len(p.of) < maxProofs {
			break
		}
		delete(p.of, old)
	}
	p.of[what] = s
}

// forget lets go of everything: of what led to other roots, nothing is of use.
func (p *proofs) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of = nil
}
