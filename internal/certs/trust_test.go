package certs_test

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// guided is a CA that tells of its roots, and hears standings.
type guided struct {
	mu      sync.Mutex
	signer  *certstest.CA
	err     error // of a guide, at once
	bundles chan certs.Trust
	cut     chan struct{}
	heard   certs.Standing
	heards  int
}

func newGuided(signer *certstest.CA) *guided {
	return &guided{signer: signer, bundles: make(chan certs.Trust, 10), cut: make(chan struct{})}
}

func (g *guided) Sign(ctx context.Context, id spiffe.ID, csr []byte, ttl time.Duration) ([]string, error) {
	g.mu.Lock()
	signer := g.signer
	g.mu.Unlock()
	return signer.Sign(ctx, id, csr, ttl)
}

func (g *guided) Guide(ctx context.Context, standing func() certs.Standing, changed <-chan struct{}, take func(certs.Trust)) error {
	g.mu.Lock()
	err, cut := g.err, g.cut
	g.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		s := standing()
		g.mu.Lock()
		g.heard, g.heards = s, g.heards+1
		g.mu.Unlock()
		select {
		case b := <-g.bundles:
			take(b)
		case <-changed:
		case <-cut:
			return errors.New("connection lost")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sign uses another CA from now on.
func (g *guided) sign(ca *certstest.CA) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.signer = ca
}

// fail makes the connection end, and the next ones too unless err is nil.
func (g *guided) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
	close(g.cut)
	g.cut = make(chan struct{})
}

func (g *guided) standing() certs.Standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.heard
}

func roots(list ...*certstest.CA) (out []*x509.Certificate) {
	for _, ca := range list {
		out = append(out, ca.Root())
	}
	return out
}

// leadsTo says below which of the CAs our certificate is.
func leadsTo(c *certs.Certificate, ca *certstest.CA) bool {
	return c.Leaf().CheckSignatureFrom(ca.Root()) == nil
}

func TestARootIsReplacedInStepsAndToldOfEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := certstest.New(t), certstest.New(t)
		g := newGuided(old)
		m := certstest.Run(t, certs.Config{CA: g}, front, back)
		oldRoot, newRoot := certs.Fingerprint(old.Root()), certs.Fingerprint(fresh.Root())
		both := certs.Fingerprints(roots(old, fresh))
		oldPeer := get(t, m, back)

		tell := func(b certs.Trust) certs.Standing {
			t.Helper()
			g.bundles <- b
			time.Sleep(11 * time.Second)
			synctest.Wait()
			s := g.standing()
			if s.Epoch != b.Epoch {
				t.Errorf("epoch %d, want %d", s.Epoch, b.Epoch)
			}
			return s
		}
		s := tell(certs.Trust{Epoch: 10, Roots: roots(old, fresh)})
		if !slices.Equal(s.Trusts, both) || len(s.Holds) != 1 || s.Holds[0].Root != oldRoot || s.Holds[0].Count != 2 {
			t.Errorf("told to trust both, it says %+v", s)
		}
		if !leadsTo(get(t, m, front), old) {
			t.Error("the certificate was replaced before anybody asked")
		}

		// Asked for certificates of the new root, it takes none of the old one, not
		// even from a replica that has not heard yet.
		s = tell(certs.Trust{Epoch: 11, Roots: roots(old, fresh), Active: newRoot, Spread: 10 * time.Second})
		if !leadsTo(get(t, m, front), old) || s.Holds[0].Root != oldRoot {
			t.Errorf("another certificate from a CA that signs as before: %+v", s)
		}
		if state := m.List()[0]; state.Err == nil || !strings.Contains(state.Err.Error(), "is being replaced") {
			t.Errorf("error %v", state.Err)
		}
		g.sign(fresh)
		time.Sleep(time.Hour)
		synctest.Wait()
		s = g.standing()
		if !leadsTo(get(t, m, front), fresh) || len(s.Holds) != 1 || s.Holds[0].Root != newRoot || s.Holds[0].Count != 2 {
			t.Errorf("asked for new certificates, it says %+v", s)
		}
		if err := meets(t, m, oldPeer); err != nil {
			t.Errorf("who has an old certificate is refused too early: %v", err)
		}

		s = tell(certs.Trust{Epoch: 12, Roots: roots(fresh), Active: newRoot})
		if !slices.Equal(s.Trusts, []string{newRoot}) {
			t.Errorf("told to forget the old root, it says %+v", s)
		}
		if err := meets(t, m, oldPeer); err == nil {
			t.Error("who has an old certificate is met")
		}

		// An older word, from a replica that lags, is not heeded.
		g.bundles <- certs.Trust{Epoch: 11, Roots: roots(old, fresh)}
		synctest.Wait()
		if s := g.standing(); s.Epoch != 12 || len(s.Trusts) != 1 {
			t.Errorf("an older word was heeded: %+v", s)
		}
	})
}

func TestNewCertificatesAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := certstest.New(t), certstest.New(t)
		g := newGuided(old)
		var ids []spiffe.ID
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
			ids = append(ids, certstest.ID("shop", name))
		}
		m := certstest.Run(t, certs.Config{CA: g}, ids...)
		g.sign(fresh)
		g.bundles <- certs.Trust{Epoch: 2, Roots: roots(old, fresh), Active: certs.Fingerprint(fresh.Root()), Spread: time.Minute}
		count := func(at time.Duration) (n int) {
			time.Sleep(at)
			synctest.Wait()
			for _, s := range m.List() {
				if leadsTo(s.Certificate, fresh) {
					n++
				}
			}
			return n
		}
		if half := count(30 * time.Second); half == 0 || half == len(ids) {
			t.Errorf("%d of %d replaced after half the time", half, len(ids))
		}
		if all := count(30 * time.Second); all != len(ids) {
			t.Errorf("%d of %d replaced after all the time", all, len(ids))
		}
	})
}

func TestWhatIsToldStaysWhileNobodyTellsAndCertificatesBringTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old, fresh := certstest.New(t), certstest.New(t)
		fresh.Trust(old)
		g := newGuided(old)
		m := certstest.Run(t, certs.Config{CA: g, TTL: time.Hour}, front, back)
		peer := get(t, certstest.Run(t, certs.Config{CA: fresh}, back), back)
		g.bundles <- certs.Trust{Epoch: 2, Roots: roots(old)}
		synctest.Wait()
		g.fail(errors.New("away"))
		time.Sleep(time.Minute)
		if err := meets(t, m, peer); err == nil {
			t.Error("a root that nobody told of is trusted")
		}
		// The control plane has gone on, and the CA is reached where the guide is
		// not: newer certificates know better.
		g.sign(fresh)
		time.Sleep(time.Hour)
		synctest.Wait()
		if err := meets(t, m, peer); err != nil {
			t.Errorf("the roots that a newer certificate brought are not trusted: %v", err)
		}
		g.fail(nil)
		g.bundles <- certs.Trust{Epoch: 2, Roots: roots(old)}
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := meets(t, m, peer); err == nil {
			t.Error("what is told again does not count")
		}
	})
}

func TestWithoutAGuideCertificatesBringTheirRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := certstest.New(t)
		g := newGuided(ca)
		g.err = certs.ErrUnguided
		m := certstest.Run(t, certs.Config{CA: g}, front, back)
		time.Sleep(time.Hour)
		if err := meets(t, m, get(t, m, back)); err != nil {
			t.Error(err)
		}
	})
}

func TestBadWordsAreNotHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := certstest.New(t)
		g := newGuided(ca)
		m := certstest.Run(t, certs.Config{CA: g}, front, back)
		for _, b := range []certs.Trust{
			{Epoch: 3},
			{Epoch: 3, Roots: roots(ca), Active: "another"},
		} {
			g.bundles <- b
			synctest.Wait()
			if s := g.standing(); s.Epoch != 0 {
				t.Errorf("%+v was heeded", b)
			}
		}
		// A list of revoked certificates that cannot be read leaves the last one.
		list := revoke(t, ca, time.Now().Add(time.Hour), get(t, m, back).Leaf())
		ders, err := certs.ParseRevocations(list)
		if err != nil {
			t.Fatal(err)
		}
		peer := get(t, m, back)
		g.bundles <- certs.Trust{Epoch: 4, Roots: roots(ca), Revocations: ders}
		synctest.Wait()
		g.bundles <- certs.Trust{Epoch: 5, Roots: roots(ca), Revocations: [][]byte{[]byte("no list")}}
		synctest.Wait()
		if err := meets(t, m, peer); !errors.Is(err, certs.ErrRevoked) || g.standing().Epoch != 5 {
			t.Errorf("after a list that cannot be read: %v", err)
		}
		g.bundles <- certs.Trust{Epoch: 6, Roots: roots(ca)}
		synctest.Wait()
		if err := meets(t, m, peer); err != nil {
			t.Errorf("after the list was cleared: %v", err)
		}
	})
}
