package exchange

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/waypoint/balance"
	"github.com/ambit-mesh/ambit/waypoint/forward"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// Causes of the end of a context.
var (
	errWholeTimeout = errors.New("the request took longer than its route allows")
	errTryTimeout   = errors.New("the backend took longer than its route allows")
)

// send tries backends until one gives an answer that is passed on.
func (e *exchange) send() *reply {
	http.NewResponseController(e.w).EnableFullDuplex() // HTTP/2 always is
	whole, single := e.decision.Timeouts(&e.query)
	ctx, limit := e.r.Context(), unlimited
	if whole > 0 {
		ctx, limit = bounded(ctx, whole, errWholeTimeout)
	}
	defer limit.end()
	e.mirror()
	retry := e.decision.Retries()
	var avoid []string
	for tries := 1; ; tries++ {
		t, no := e.pick(ctx, avoid, tries)
		if no != nil {
			return no
		}
		t.whole = limit
		t.run(ctx, single)
		if !e.again(ctx, retry, tries, t) {
			return t.finish()
		}
		t.abandon()
		avoid = append(avoid, t.choice.Workload.UID)
		if !pause(ctx, match.Backoff(retry, tries, e.config.Random)) {
			return e.ended(ctx)
		}
	}
}

// again says whether another try is made in place of what this one has.
func (e *exchange) again(ctx context.Context, retry *mesh.Retry, tries int, t *try) bool {
	if ctx.Err() != nil || e.workload != nil || !e.body.repeatable() || t.response != nil && t.response.StatusCode == http.StatusSwitchingProtocols {
		return false
	}
	if t.choice.Probe {
		tries-- // the endpoint was in doubt, which is not the request's fault
	}
	return match.Again(retry, tries, t.status(), t.failure)
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// limit is a bound of time that can be lifted.
type limit struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// unlimited bounds nothing, and may be ended again and again.
var unlimited = &limit{cancel: func(error) {}}

// bounded ends ctx when d is over, if there is such a bound, or with the limit.
func bounded(ctx context.Context, d time.Duration, cause error) (context.Context, *limit) {
	ctx, cancel := context.WithCancelCause(ctx)
	l := &limit{cancel: cancel}
	if d > 0 {
		l.timer = time.AfterFunc(d, func() { cancel(cause) })
	}
	return ctx, l
}

// lift lets what goes on take as long as it likes.
func (l *limit) lift() {
	if l.timer != nil {
		l.timer.Stop()
	}
}

func (l *limit) end() { l.lift(); l.cancel(nil) }

// ended is the reply to an exchange whose context has ended.
func (e *exchange) ended(ctx context.Context) *reply {
	cause := context.Cause(ctx)
	if errors.Is(cause, errWholeTimeout) || errors.Is(cause, errTryTimeout) {
		return &reply{status: http.StatusGatewayTimeout, flag: telemetry.ExchangeTimeout, text: "upstream request timeout", err: cause}
	}
	return &reply{flag: telemetry.ExchangeClientEnded, err: cause, abort: true}
}

// pick chooses the endpoint of a try.
func (e *exchange) pick(ctx context.Context, avoid []string, tries int) (*try, *reply) {
	t := &try{exchange: e}
	if e.workload != nil {
		app := mesh.AppUnknown
		t.choice = balance.Choice{Workload: e.workload, Address: e.arrival.Dialled, App: app}
		t.done = func(balance.Result) {}
		t.to = &forward.Endpoint{Workload: e.workload, Address: e.arrival.Dialled}
		return t, nil
	}
	v := e.table.View()
	s := v.Service(e.backend.Service)
	if s == nil {
		return nil, unknown("service", e.backend.Service)
	}
	settings := e.table.Traffic(s.Key()).For(e.backend.Port)
	q := balance.Query{
		Service: s, Port: e.backend.Port, Endpoints: v.Endpoints(s.Key()), Settings: settings, Local: e.config.Self(),
		Hash: e.hash, Avoid: avoid, Original: e.original(), Retry: tries > 1, NoProbe: !e.mayProbe(), Pin: e.pin(v),
	}
	choice, err := e.config.Balancer.Pick(q)
	if no, ok := errors.AsType[*balance.UnavailableError](err); ok && no.Why == balance.WhyTried {
		q.Avoid = nil // there is no other: the same may do better now
		choice, err = e.config.Balancer.Pick(q)
	}
	if err != nil {
		return nil, unpicked(err)
	}
	if t.choice = choice; !t.speaksTwo() {
		if t.choice, err = choice.Connect(ctx, &settings.Connections); err != nil {
			t.choice.Done(balance.Result{})
			if ctx.Err() != nil {
				return nil, e.ended(ctx)
			}
			return nil, unpicked(err)
		}
	}
	t.done = t.choice.Done
	t.to = &forward.Endpoint{Workload: choice.Workload, Address: choice.Address, Service: s, Settings: settings.Connections, TLS: settings.TLS}
	return t, nil
}

// pin finds the endpoint that the client's session is with, if it is still there.
func (e *exchange) pin(v *view.View) string {
	if e.session == (match.Session{}) {
		return ""
	}
	for _, end := range v.Endpoints(e.backend.Service) {
		if e.session.With(e.backend.Service, end.Workload.UID) {
			return end.Workload.UID
		}
	}
	return ""
}

// unpicked is the reply where no endpoint could be chosen.
func unpicked(err error) *reply {
	flag, text := telemetry.ExchangeNoHealthy, "no healthy upstream"
	if _, ok := errors.AsType[*balance.OverflowError](err); ok {
		flag, text = telemetry.ExchangeOverflow, "upstream overflow"
	}
	return &reply{status: http.StatusServiceUnavailable, flag: flag, text: text, err: err}
}

// original is what the client dialled, for services that are not balanced.
func (e *exchange) original() netip.AddrPort {
	if e.backend.Service == e.service.Key() {
		return e.arrival.Dialled
	}
	return netip.AddrPort{}
}

// mayProbe says whether an endpoint in doubt may be asked first: only with what
// can be asked of another one if it fails.
func (e *exchange) mayProbe() bool {
	switch e.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return e.body == nil && e.upgrade == ""
	}
	return false
}

// hash gives what consistent hashing may ask for.
func (e *exchange) hash(k mesh.HashKey) (string, bool) {
	switch {
	case k.Header != "":
		v := e.r.Header.Get(k.Header)
		return v, v != ""
	case k.Cookie != "":
		return e.hashCookie(k)
	case k.Query != "":
		v := e.r.URL.Query().Get(k.Query)
		return v, v != ""
	case k.SourceIP:
		return e.arrival.Source.Addr().String(), true
	}
	return "", false
}

// hashCookie is the value of the cookie that is hashed. A client that has none
// is given one, where the rule says how long it lives.
func (e *exchange) hashCookie(k mesh.HashKey) (string, bool) {
	if c, err := e.r.Cookie(k.Cookie); err == nil {
		return c.Value, true
	}
	if e.cookie == nil && k.CookieTTL > 0 {
		e.cookie = &http.Cookie{
			Name: k.Cookie, Value: strconv.FormatUint(rand.Uint64(), 36), Path: k.CookiePath,
			MaxAge: max(1, int(k.CookieTTL.Seconds())), HttpOnly: true,
		}
	}
	if e.cookie == nil {
		return "", false
	}
	return e.cookie.Value, true
}
