// Package extauthz asks external authorizers about requests and connections, in
// Envoy's ext_authz protocol over gRPC or HTTP.
//
// It owns the protocol, the connections to providers, and what becomes of a
// request whose provider does not answer: it is denied unless the provider is
// configured to fail open. It refuses to know which requests are asked about,
// which internal/policy tells, and how a provider is reached: the caller dials.
// Called by waypoint/exchange.
package extauthz

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// defaultTimeout is mesh.Provider's.
const defaultTimeout = 10 * time.Second

// Question is a request, or a connection if it has no Method.
type Question struct {
	ID                 string
	Time               time.Time
	Source             netip.AddrPort
	SourceID           spiffe.ID
	Destination        netip.AddrPort
	SNI                string
	Method, Host, Path string // Path is escaped
	Query              string // raw
	Proto              string // as "HTTP/2.0"
	Header             http.Header
	// Size is the body's, -1 if it is not known.
	Size int64
	// Body is the beginning of the body, if the provider wants it; Partial says
	// that there is more.
	Body    []byte
	Partial bool
}

// Answer is what a provider says.
type Answer struct {
	Allow bool
	// Cause is policy.CauseRefused or CauseUnanswered of an answer that denies.
	Cause policy.Cause
	// Err is why the provider could not be asked, whether it fails open or not.
	Err error

	// Status, Header and Body are for the client of what is denied.
	Status int
	Header http.Header
	Body   []byte

	// Of what is allowed: what changes in the request, and what is added to the
	// answer to the client.
	Edit     Edit
	Response Edit
}

// Config is what an Asker works with.
type Config struct {
	// Dial connects to a provider. Required.
	Dial func(context.Context, *mesh.Provider) (net.Conn, error)
}

// Asker asks, over connections that it keeps. It is used by many goroutines.
type Asker struct {
	dial func(context.Context, *mesh.Provider) (net.Conn, error)

	mu     sync.Mutex
	closed bool
	grpc   map[address]*grpc.ClientConn
	http   map[address]*http.Client
}

// address is where a provider is: all that connections depend on.
type address struct {
	service mesh.ServiceKey
	host    string
	port    uint16
}

func addressOf(p *mesh.Provider) address { return address{p.Service, p.Host, p.Port} }

// authority is how a provider's host is named.
func (a address) authority() string {
	host := a.host
	if host == "" {
		host = a.service.Hostname
	}
	return net.JoinHostPort(host, strconv.Itoa(int(a.port)))
}

// New makes an Asker; Close ends it.
func New(c Config) *Asker {
	return &Asker{dial: c.Dial, grpc: map[address]*grpc.ClientConn{}, http: map[address]*http.Client{}}
}

var errClosed = errors.New("the asker is closed")

// Ask asks p about q. A provider that does not answer in time, or with an
// error, lets pass only what it is configured to.
func (a *Asker) Ask(ctx context.Context, p *mesh.Provider, q *Question) Answer {
	timeout := p.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ask := a.askHTTP
	if p.GRPC {
		ask = a.askGRPC
	}
	answer, err := ask(ctx, p, q)
	if err == nil {
		return answer
	}
	err = fmt.Errorf("asking provider %s: %w", p.Name, err)
	if p.FailOpen {
		return Answer{Allow: true, Err: err}
	}
	status := p.StatusOnError
	if status == 0 {
		status = http.StatusForbidden
	}
	return Answer{Cause: policy.CauseUnanswered, Err: err, Status: status}
}

// Close ends all connections. Questions under way fail.
func (a *Asker) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	var errs []error
	for _, c := range a.grpc {
		errs = append(errs, c.Close())
	}
	for _, c := range a.http {
		c.CloseIdleConnections()
	}
	a.grpc, a.http = nil, nil
	return errors.Join(errs...)
}
