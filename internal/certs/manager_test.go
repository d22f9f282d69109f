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
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

var front, back = certstest.ID("shop", "front"), certstest.ID("shop", "back")

// managed runs f with a manager in time that passes only when everybody waits.
func managed(t *testing.T, cfg certs.Config, f func(t *testing.T, ca *certstest.CA, m *certs.Manager)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ca := certstest.New(t)
		if cfg.CA == nil {
			cfg.CA = ca
		}
		m := certs.NewManager(cfg)
		ctx, cancel := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() { m.Run(ctx) })
		defer run.Wait()
		defer cancel()
		f(t, ca, m)
	})
}

func get(t *testing.T, m *certs.Manager, id spiffe.ID) *certs.Certificate {
	t.Helper()
	c, err := m.Certificate(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if c.ID != id {
		t.Errorf("certificate of %s, want %s", c.ID, id)
	}
	return c
}

func TestManyWhoWaitShareOneRequest(t *testing.T) {
	managed(t, certs.Config{}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		release := ca.Block()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { get(t, m, front) })
		}
		synctest.Wait()
		release()
		all.Wait()
		get(t, m, front)
		if n := ca.Asked(front); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

func TestAWarmedCertificateIsThereWhenNeeded(t *testing.T) {
	managed(t, certs.Config{}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		m.Warm(front)
		synctest.Wait()
		release := ca.Block()
		defer release()
		get(t, m, front) // without asking again
	})
}

func TestWhoWaitsComesFirst(t *testing.T) {
	managed(t, certs.Config{Workers: 1}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		release := ca.Block()
		m.Warm(certstest.ID("a", "first")) // holds the one worker
		synctest.Wait()
		for _, name := range []string{"b", "c", "d", "e", "f", "g", "h"} {
			m.Warm(certstest.ID("warm", name))
		}
		order := make(chan string, 1)
		go func() {
			get(t, m, back)
			order <- "waiter"
		}()
		synctest.Wait()
		// Let go of the first only: whoever comes second is what is tested.
		hold := ca.Block()
		release()
		synctest.Wait()
		if n := ca.Asked(back); n != 1 {
			t.Error("something only warmed was asked for before what a handshake waits for")
		}
		hold()
		<-order
	})
}

func TestRenewalAtHalfLifeAndNobodyNotices(t *testing.T) {
	var changed int
	managed(t, certs.Config{TTL: 24 * time.Hour, Changed: func(spiffe.ID) { changed++ }}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		first := get(t, m, front)
		time.Sleep(10 * time.Hour)
		synctest.Wait()
		if n := ca.Asked(front); n != 1 {
			t.Errorf("renewed after 10 of 24 hours")
		}
		time.Sleep(2*time.Hour + time.Minute)
		synctest.Wait()
		second := get(t, m, front)
		if n := ca.Asked(front); n != 2 || second.Leaf().SerialNumber.Cmp(first.Leaf().SerialNumber) == 0 || changed != 2 {
			t.Errorf("%d requests after half life, %d changes", n, changed)
		}
		if string(first.Leaf().RawSubjectPublicKeyInfo) == string(second.Leaf().RawSubjectPublicKeyInfo) {
			t.Error("renewed with the old key")
		}
	})
}

func TestRenewalsOfCertificatesMadeTogetherAreSpread(t *testing.T) {
	managed(t, certs.Config{TTL: 24 * time.Hour}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			m.Warm(certstest.ID("shop", name))
		}
		synctest.Wait()
		due := map[time.Time]bool{}
		for _, s := range m.List() {
			due[s.Next] = true
		}
		if len(due) < 8 {
			t.Errorf("8 certificates are renewed at %d times", len(due))
		}
	})
}

func TestAValidCertificateIsServedWhileTheCAIsAway(t *testing.T) {
	managed(t, certs.Config{TTL: 24 * time.Hour}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		first := get(t, m, front)
		ca.Fail(errors.New("CA is away"))
		time.Sleep(23*time.Hour + 59*time.Minute)
		if get(t, m, front) != first {
			t.Error("another certificate")
		}
		tries := ca.Asked(front)
		if tries < 10 || tries > 1000 {
			t.Errorf("%d requests in 12 hours", tries)
		}
		if s := m.List()[0]; s.State != certs.StateAvailable || s.Err == nil || s.Certificate != first {
			t.Errorf("listed as %+v", s)
		}
		time.Sleep(2 * time.Minute)
		if _, err := m.Certificate(t.Context(), front); err == nil || !strings.Contains(err.Error(), "CA is away") {
			t.Errorf("after its end: %v", err)
		}
		if s := m.List()[0]; s.State != certs.StateExpired {
			t.Errorf("listed as %s", s.State)
		}
		ca.Fail(nil)
		time.Sleep(150 * time.Second)
		get(t, m, front)
	})
}

func TestShortCertificatesAreTriedForOftenEnoughBeforeTheyEnd(t *testing.T) {
	managed(t, certs.Config{TTL: time.Minute}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		for range 20 {
			first := get(t, m, front)
			time.Sleep(first.Leaf().NotAfter.Sub(time.Now()) / 3)
			ca.Fail(errors.New("CA is away"))
			time.Sleep(first.Leaf().NotAfter.Sub(time.Now()) - 10*time.Second)
			ca.Fail(nil)
			time.Sleep(9 * time.Second)
			synctest.Wait()
			if get(t, m, front) == first {
				t.Fatal("a CA that was back 10 s before the certificate's end was not asked in time")
			}
		}
	})
}

// TestOneThatHasEndedBeforeItsRenewalIsReplacedAtOnce, as happens when the clock
// is set forward. Time only passes here, so that it is a life of less than the
// second that is left between two requests at the least.
func TestOneThatHasEndedBeforeItsRenewalIsReplacedAtOnce(t *testing.T) {
	managed(t, certs.Config{TTL: time.Second}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		time.Sleep(400 * time.Millisecond) // certificates end with a whole second
		first := get(t, m, front)
		time.Sleep(700 * time.Millisecond)
		if s := m.List()[0]; s.State != certs.StateExpired || !s.Next.After(time.Now()) {
			t.Fatalf("it is %s and due in %v: want one that has ended before it is due", s.State, time.Until(s.Next))
		}
		began := time.Now()
		if c := get(t, m, front); c == first || time.Since(began) > 0 {
			t.Errorf("another one is %v, after %v: want that at once", c != first, time.Since(began))
		}
		time.Sleep(950 * time.Millisecond)
		ca.Fail(errors.New("no"))
		asked := ca.Asked(front)
		for range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			if _, err := m.Certificate(ctx, front); err == nil {
				t.Error("one that has ended is used")
			}
			cancel()
		}
		if n := ca.Asked(front) - asked; n != 1 {
			t.Errorf("%d requests while the CA refuses: want one, whoever asks", n)
		}
	})
}

func TestAHandshakeWaitsForTheNextTryOnlyIfItCanHaveIt(t *testing.T) {
	managed(t, certs.Config{}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		ca.Fail(errors.New("pod is not known yet"))
		go func() { time.Sleep(3 * time.Second); ca.Fail(nil) }()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := m.Certificate(ctx, front); err != nil {
			t.Errorf("a short outage was not waited for: %v", err)
		}
		if took := time.Since(begin); took < 3*time.Second || took > 8*time.Second {
			t.Errorf("took %v", took)
		}
		ca.Fail(errors.New("no"))
		begin = time.Now()
		short, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := m.Certificate(short, back)
		if err == nil || !strings.Contains(err.Error(), "no") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took >= 2*time.Second {
			t.Errorf("waited %v for a try that came too late", took)
		}
	})
}

func TestTriesBecomeRarer(t *testing.T) {
	managed(t, certs.Config{}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		ca.Fail(errors.New("no"))
		m.Warm(front)
		time.Sleep(10 * time.Second)
		early := ca.Asked(front)
		time.Sleep(time.Hour)
		late := ca.Asked(front) - early
		if early < 3 || early > 6 || late < 240 || late > 310 { // one in 12 to 15 s
			t.Errorf("%d requests in 10 s, %d in the next hour", early, late)
		}
	})
}

func TestShortLivesBackDatedAreNotRenewedInALoop(t *testing.T) {
	managed(t, certs.Config{TTL: 3 * time.Minute}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		ca.Age(2 * time.Minute) // half life is past at birth
		m.Warm(front)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := ca.Asked(front); n > 40 {
			t.Errorf("%d requests in 10 minutes for certificates of one", n)
		}
		get(t, m, front)
	})
}

func TestWhatIsForgottenIsNotRenewed(t *testing.T) {
	managed(t, certs.Config{TTL: time.Hour}, func(t *testing.T, ca *certstest.CA, m *certs.Manager) {
		get(t, m, front)
		get(t, m, back)
		m.Forget(front)
		time.Sleep(24 * time.Hour)
		if n := ca.Asked(front); n != 1 {
			t.Errorf("%d requests for who is forgotten", n)
		}
		if n := ca.Asked(back); n < 24 {
			t.Errorf("%d requests for who is not", n)
		}
		if list := m.List(); len(list) != 1 || list[0].ID != back {
			t.Errorf("listed %v", list)
		}
	})
}

// answers is a CA that answers with what it is told.
type answers func(csr []byte) []string

func (a answers) Sign(_ context.Context, _ spiffe.ID, csr []byte, _ time.Duration) ([]string, error) {
	return a(csr), nil
}

func TestAnswersThatDoNotFitAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := certstest.New(t)
		sign := func(id spiffe.ID, csr []byte, ttl time.Duration) []string {
			chain, err := ca.Sign(t.Context(), id, csr, ttl)
			if err != nil {
				t.Fatal(err)
			}
			return chain
		}
		var otherCSR []byte
		grab := answers(func(csr []byte) []string { otherCSR = csr; return nil })
		for _, tt := range []struct {
			name   string
			answer answers
			want   string
		}{
			{"nothing", grab, "0 elements"},
			{"no roots", func(csr []byte) []string { return sign(front, csr, time.Hour)[:1] }, "1 elements"},
			{"somebody else's identity", func(csr []byte) []string { return sign(back, csr, time.Hour) }, "asked for"},
			{"another key", func([]byte) []string { return sign(front, otherCSR, time.Hour) }, "another key"},
			{"an expired one", func(csr []byte) []string { return sign(front, csr, -time.Hour) }, "expired"},
			{"no PEM", func(csr []byte) []string { return []string{"x", "y"} }, "no certificate"},
			{"roots first", func(csr []byte) []string { c := sign(front, csr, time.Hour); return []string{c[1], c[0]} }, "asked for"},
		} {
			m := certs.NewManager(certs.Config{CA: tt.answer})
			ctx, cancel := context.WithCancel(t.Context())
			var run sync.WaitGroup
			run.Go(func() { m.Run(ctx) })
			if _, err := m.Certificate(ctx, front); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
			if s := m.List()[0]; s.State != certs.StateUnavailable {
				t.Errorf("%s: listed as %s", tt.name, s.State)
			}
			cancel()
			run.Wait()
		}
	})
}

func TestIntermediatesArePresentedAndRootsAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, other := certstest.New(t), certstest.New(t)
		m := certs.NewManager(certs.Config{CA: answers(func(csr []byte) []string {
			chain, err := ca.Sign(t.Context(), front, csr, time.Hour)
			if err != nil {
				t.Error(err)
			}
			// leaf, an intermediate, the root repeated, and two roots in one bundle
			return []string{chain[0], other.RootPEM(), ca.RootPEM(), ca.RootPEM() + certstest.New(t).RootPEM()}
		})})
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { m.Run(ctx) })
		defer run.Wait()
		defer cancel()
		c := get(t, m, front)
		if len(c.Chain) != 2 || len(c.Roots) != 2 {
			t.Errorf("chain of %d, %d roots, want 2 and 2", len(c.Chain), len(c.Roots))
		}
	})
}
