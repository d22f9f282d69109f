package connections

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/telemetry"
)

func TestOnlyTheDeniedAreCutAndToldWhy(t *testing.T) {
	var s Set
	track := func(ip string, judged bool) (context.Context, *Conn) {
		i := Info{Source: netip.MustParseAddrPort(ip + ":1000"), Started: time.Now()}
		if judged {
			i.Policy = &policy.Connection{SourceIP: i.Source.Addr()}
		}
		return s.Track(t.Context(), i)
	}
	good, g := track("10.0.0.1", true)
	bad, b := track("10.0.0.2", true)
	unjudged, u := track("10.0.0.2", false)
	deny := policy.Verdict{Cause: policy.CauseDenied, Policy: mesh.PolicyKey{Namespace: "shop", Name: "no-two"}}
	cut := s.Rejudge(func(c policy.Connection) policy.Verdict {
		if c.SourceIP.String() == "10.0.0.2" {
			return deny
		}
		return policy.Verdict{Allow: true, Cause: policy.CauseNoPolicy}
	})
	if cut != 1 || good.Err() != nil || unjudged.Err() != nil {
		t.Errorf("cut %d; allowed one: %v; one without policy: %v", cut, good.Err(), unjudged.Err())
	}
	var denied *Denied
	if !errors.As(context.Cause(bad), &denied) || !strings.Contains(denied.Error(), "shop/no-two") {
		t.Errorf("the denied one ended by %v, want the policy named", context.Cause(bad))
	}
	if n := s.Len(); n != 3 {
		t.Errorf("%d live, want 3 until each is done", n)
	}
	for _, c := range []*Conn{g, b, u, u} {
		c.Done()
	}
	if n := s.Len(); n != 0 {
		t.Errorf("%d live after all are done", n)
	}
	if good.Err() == nil {
		t.Error("the context outlives its connection")
	}
}

func TestTheListIsOldestFirstAndUpToDate(t *testing.T) {
	var s Set
	start := time.Now()
	_, second := s.Track(t.Context(), Info{Source: netip.MustParseAddrPort("10.0.0.2:1"), Started: start.Add(time.Second)})
	_, first := s.Track(t.Context(), Info{Source: netip.MustParseAddrPort("10.0.0.1:1"), Started: start})
	defer first.Done()
	defer second.Done()
	second.Update(func(i *Info) { i.HBONE = true })
	got := s.List()
	if len(got) != 2 || got[0].Source.Addr().String() != "10.0.0.1" || !got[1].HBONE {
		t.Errorf("list %+v", got)
	}
}

func TestOutboundConnectionsAreReviewed(t *testing.T) {
	var s Set
	track := func(d telemetry.Direction, to string) (context.Context, *Conn) {
		return s.Track(t.Context(), Info{Direction: d, Original: netip.MustParseAddrPort(to)})
	}
	in, i := track(telemetry.Inbound, "192.0.2.1:80")
	out, o := track(telemetry.Outbound, "192.0.2.1:80")
	other, p := track(telemetry.Outbound, "10.0.0.1:80")
	cut := s.Review(func(i Info) string {
		if i.Original.Addr().String() == "192.0.2.1" {
			return "nothing is there"
		}
		return ""
	})
	if cut != 1 || in.Err() != nil || other.Err() != nil {
		t.Errorf("cut %d; the inbound one: %v; the one that may stay: %v", cut, in.Err(), other.Err())
	}
	var outlawed *Outlawed
	if !errors.As(context.Cause(out), &outlawed) || outlawed.Error() != "connection closed: nothing is there" {
		t.Errorf("it ended by %v", context.Cause(out))
	}
	for _, c := range []*Conn{i, o, p} {
		c.Done()
	}
}
