package certs_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/certs/certstest"
)

// keep writes front's certificate down.
func keep(t *testing.T, m *certs.Manager) certs.Kept {
	t.Helper()
	kept, err := get(t, m, front).Keep()
	if err != nil {
		t.Fatal(err)
	}
	return kept
}

// restart makes a manager with what an earlier one kept.
func restart(t *testing.T, ca certs.CA, kept certs.Kept) *certs.Manager {
	t.Helper()
	c, err := kept.Restore(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m := certs.NewManager(certs.Config{CA: ca, Kept: []*certs.Certificate{c}})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { m.Run(ctx) })
	t.Cleanup(func() { cancel(); run.Wait() })
	return m
}

func TestAKeptCertificateIsUsedUntilItCanBeRenewed(t *testing.T) {
	managed(t, certs.Config{}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		before := get(t, m, front)
		ca.Fail(errors.New("away"))
		m = restart(t, ca, keep(t, m))
		if got := get(t, m, front); !got.Leaf().Equal(before.Leaf()) || len(got.Roots) != 1 {
			t.Errorf("restored as %s with %d roots", got.Leaf().SerialNumber, len(got.Roots))
		}
		synctest.Wait()
		if n := ca.Asked(front); n != 2 {
			t.Errorf("asked %d times, want a renewal at once", n)
		}
		ca.Fail(nil)
		time.Sleep(time.Minute)
		if got := get(t, m, front); got.Leaf().Equal(before.Leaf()) {
			t.Error("it is still in use though the CA is back")
		}
	})
}

func TestAnExpiredKeptCertificateIsNeverUsed(t *testing.T) {
	managed(t, certs.Config{}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		kept := keep(t, m)
		ca.Fail(errors.New("away"))
		late := restart(t, ca, kept)
		time.Sleep(25 * time.Hour)
		if _, err := kept.Restore(time.Now()); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("restored after its end: %v", err)
		}
		if _, err := late.Certificate(t.Context(), front); err == nil {
			t.Error("one that expired before it was asked for is used")
		}
		if n := len(late.Keepable()); n > 0 {
			t.Errorf("%d certificates to keep, want none that expired", n)
		}
	})
}

func TestWhatIsKeptIsWhatMayBeUsedAndWanted(t *testing.T) {
	managed(t, certs.Config{}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		m = restart(t, ca, keep(t, m))
		get(t, m, back)
		if n := len(m.Keepable()); n != 2 {
			t.Errorf("%d to keep, want the new one and the one that waits for its workload", n)
		}
		m.ForgetKept()
		if list := m.Keepable(); len(list) != 1 || list[0].ID != back {
			t.Errorf("%d to keep after the other's workload proved gone", len(list))
		}
		get(t, m, front)
		if n := ca.Asked(front); n != 2 {
			t.Errorf("asked %d times for what was let go of, want anew", n)
		}
	})
}

func TestWhatWasTamperedWithIsNotRestored(t *testing.T) {
	managed(t, certs.Config{}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		kept, other := keep(t, m), func() certs.Kept { k, _ := get(t, m, back).Keep(); return k }()
		for name, change := range map[string]func(k *certs.Kept){
			"another identity":   func(k *certs.Kept) { k.ID = back.String() },
			"no identity":        func(k *certs.Kept) { k.ID = "front" },
			"another key":        func(k *certs.Kept) { k.Key = other.Key },
			"half a key":         func(k *certs.Kept) { k.Key = k.Key[:20] },
			"another's chain":    func(k *certs.Kept) { k.Chain = other.Chain },
			"no chain":           func(k *certs.Kept) { k.Chain = nil },
			"no roots":           func(k *certs.Kept) { k.Roots = nil },
			"half a certificate": func(k *certs.Kept) { k.Chain = [][]byte{k.Chain[0][:50]} },
		} {
			k := kept
			change(&k)
			if _, err := k.Restore(time.Now()); err == nil {
				t.Errorf("%s: restored", name)
			}
		}
	})
}

// TestAKeptCertificateBelowARootThatWasReplacedIsNotUsed, and what is kept from
// then on trusts the new root alone.
func TestAKeptCertificateBelowARootThatWasReplacedIsNotUsed(t *testing.T) {
	managed(t, certs.Config{}, func(t *testing.T, old *certstest.CA, m *certs.Manager) {
		kept, fresh := keep(t, m), certstest.New(t)
		c, err := kept.Restore(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		g, told := newGuided(fresh), 0
		m = certstest.Run(t, certs.Config{CA: g, Kept: []*certs.Certificate{c}, Trusted: func() { told++ }})
		for range 2 {
			g.bundles <- certs.Trust{Epoch: 2, Roots: roots(fresh), Active: certs.Fingerprint(fresh.Root())}
			synctest.Wait()
		}
		if told != 1 {
			t.Errorf("told %d times of other roots, want once", told)
		}
		if n := len(m.Keepable()); n > 0 {
			t.Errorf("%d of the old root are kept further", n)
		}
		if !leadsTo(get(t, m, front), fresh) {
			t.Error("it is used")
		}
		if list := m.Keepable(); len(list) != 1 || len(list[0].Roots) != 1 || !list[0].Roots[0].Equal(fresh.Root()) {
			t.Errorf("kept from now on: %d, with other roots", len(list))
		}
	})
}

// TestWhatWasToldOfRootsOutlivesTheProcess: with the root that was forgotten, and
// the certificates that were revoked.
func TestWhatWasToldOfRootsOutlivesTheProcess(t *testing.T) {
	managed(t, certs.Config{}, func(t *testing.T, old *certstest.CA, m *certs.Manager) {
		oldPeer, fresh := get(t, m, back), certstest.New(t)
		g := newGuided(fresh)
		m = certstest.Run(t, certs.Config{CA: g}, front)
		g.bundles <- certs.Trust{Epoch: 2, Roots: roots(fresh), Active: certs.Fingerprint(fresh.Root())}
		synctest.Wait()
		kept, told := keep(t, m), m.Told()
		c, err := kept.Restore(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		c.Roots = roots(old, fresh) // as it was born, say
		trust, err := told.Restore()
		if err != nil {
			t.Fatal(err)
		}
		away := certstest.New(t)
		away.Fail(errors.New("away"))
		m = certstest.Run(t, certs.Config{CA: away, Kept: []*certs.Certificate{c}, Told: trust})
		if err := meets(t, m, oldPeer); err == nil {
			t.Error("who has a certificate below the root that was forgotten is met after a restart")
		}
		if _, err := (certs.KeptTrust{}).Restore(); err == nil {
			t.Error("no roots at all are restored")
		}
	})
}
