package exchange

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/decision"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/internal/tracing"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/waypoint/authn"
	"github.com/ambit-mesh/ambit/waypoint/balance"
	"github.com/ambit-mesh/ambit/waypoint/extauthz"
	"github.com/ambit-mesh/ambit/waypoint/forward"
	"github.com/ambit-mesh/ambit/waypoint/match"
)

// Table is one state of the configuration; it never changes.
type Table interface {
	View() *view.View
	Generation() uint64
	Routes(mesh.ServiceKey, uint16) *match.Routes
	Traffic(mesh.ServiceKey) *mesh.Traffic
	Policies(mesh.ServiceKey) policy.Set
	Authentications(mesh.ServiceKey) []*mesh.Authentication
}

// Config is what an Exchanger works with; every field without a zero value is
// required.
type Config struct {
	// Table is asked once for each request.
	Table func() Table
	// Serving is asked in Table's place for a service's requests: the Table that
	// serves it, nil if none does, and whether it is leaving. Nil: Table.
	Serving func(mesh.ServiceKey) (t Table, leaving bool)
	// Self is the waypoint's own record, nil while it has not come.
	Self     func() *mesh.Workload
	Balancer *balance.Balancer
	Forward  *forward.Forwarder
	// Record is given each request when it has ended.
	Record func(*telemetry.Exchange)
	// DryRuns is told what dry-run policies say. Nil: nobody is.
	DryRuns *telemetry.DryRuns
	// Tracer makes spans. Nil makes none.
	Tracer *tracing.Tracer
	// Decisions remembers requests for explanations. Nil: nobody does.
	Decisions *decision.Ring
	// MaxReplay is how much of a request's body is kept for another try or a
	// mirror. Zero is 64 KiB.
	MaxReplay int
	// MaxMirrors bounds the copies under way; further ones are dropped. Zero is
	// 256.
	MaxMirrors int
	// MirrorTimeout bounds a copy's exchange. Zero is 15 s.
	MirrorTimeout time.Duration
	// Random gives a number from 0 to n-1. Nil is math/rand's.
	Random func(n int) int
	// Logger receives what has no record. Nil discards it.
	Logger *slog.Logger
}

// Exchanger serves requests. It is used by many goroutines.
type Exchanger struct {
	config  Config
	log     *slog.Logger
	mirrors mirrors
	tokens  authn.Verifier
	asker   *extauthz.Asker
}

// New makes an Exchanger; Close ends it.
func New(c Config) *Exchanger {
	def(&c.MaxReplay, 64<<10)
	def(&c.MaxMirrors, 256)
	def(&c.MirrorTimeout, 15*time.Second)
	if c.Random == nil {
		c.Random = rand.IntN
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	x := &Exchanger{config: c, log: c.Logger.With("component", "exchange")}
	x.asker = extauthz.New(extauthz.Config{Dial: x.dialProvider})
	x.mirrors.slots = make(chan struct{}, c.MaxMirrors)
	x.mirrors.ctx, x.mirrors.cancel = context.WithCancel(context.Background())
	return x
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Close cuts the mirrors and questions that are under way, and waits for the
// mirrors.
func (x *Exchanger) Close() error {
	x.mirrors.cancel()
	x.mirrors.running.Wait()
	return x.asker.Close()
}

// ServeHTTP serves one request of a connection that carries an Arrival.
func (x *Exchanger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e := &exchange{Exchanger: x, w: w, r: r, arrival: arrivalOf(r.Context())}
	if e.choosesTable(); e.leaving || e.gone {
		w.Header().Set("Connection", "close") // in HTTP/2 this becomes GOAWAY
	}
	e.begin()
	defer e.end()
	for _, step := range steps {
		if a := step(e); a != nil {
			e.answer(a)
			return
		}
	}
}

// choosesTable takes the one Table that the request sees.
func (e *exchange) choosesTable() {
	if a := e.arrival; a != nil && a.Workload == "" && e.config.Serving != nil {
		e.table, e.leaving = e.config.Serving(a.Service)
	}
	if e.table == nil {
		e.table, e.gone = e.config.Table(), e.config.Serving != nil && e.arrival != nil && e.arrival.Workload == ""
	}
}

// exchange is one request on its way through the steps.
type exchange struct {
	*Exchanger
	w       http.ResponseWriter
	r       *http.Request
	arrival *Arrival
	table   Table
	grpc    bool
	// leaving says that the service does not use this waypoint any more, gone
	// that it has not for long.
	leaving, gone bool

	// What is asked for: a service, or a workload itself.
	service  *mesh.Service
	workload *mesh.Workload

	query    match.Request
	asked    policy.Request
	policies policy.Set
	verdict  policy.Verdict
	edits    []extauthz.Edit // of the answer, by providers that let it pass
	routes   *match.Routes
	decision match.Decision
	sharing  match.Sharing
	session  match.Session
	// cookie is one that consistent hashing gave to a client without it.
	cookie  *http.Cookie
	backend mesh.Backend

	// What goes on to the backend.
	header   http.Header
	host     string
	path     string
	body     *body
	upgrade  string      // the protocol that the client wants to change to
	copies   []*exchange // for mirrors
	replied  bool
	answered counter // the body of the answer
	record   telemetry.Exchange
	span     *tracing.Span
}

// steps are gone through in this order, until one gives an answer. The last
// one always does, or has written the backend's.
var steps = [...]func(*exchange) *reply{
	(*exchange).identify, (*exchange).normalize, (*exchange).consult, (*exchange).authenticate, (*exchange).authorize,
	(*exchange).takeHeader, (*exchange).route, (*exchange).filter, (*exchange).choose, (*exchange).send,
}

// mirrors are the copies under way, which outlive their requests.
type mirrors struct {
	ctx     context.Context
	cancel  context.CancelFunc
	slots   chan struct{}
	running sync.WaitGroup
}
