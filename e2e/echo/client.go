package echo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Plan says how often and how fast a client tries.
type Plan struct {
	// Count is how many attempts. Zero means one, or until Duration ends.
	Count int
	// Rate is attempts per second; they start on time whether or not earlier
	// ones have ended. Zero means one after the other.
	Rate float64
	// Duration ends the run. Zero means after Count attempts.
	Duration time.Duration
	// Timeout bounds one attempt. Zero means 5 s.
	Timeout time.Duration
	// InFlight bounds attempts at one time; one that finds no room counts as
	// failed. Zero means 1000.
	InFlight int
}

func (p *Plan) defaults() {
	if p.Count == 0 && p.Duration == 0 {
		p.Count = 1
	}
	if p.Timeout == 0 {
		p.Timeout = 5 * time.Second
	}
	if p.InFlight == 0 {
		p.InFlight = 1000
	}
}

// attempt tries once and returns the name of who answered and the answer, if there is one.
type attempt func(context.Context) (who string, answer any, err error)

// errOverloaded means that too many attempts were still open.
var errOverloaded = errors.New("too many open attempts")

// run follows the plan until it is done or ctx ends, and sums up. Attempts that
// are open at the end are waited for, within their timeout.
func run(ctx context.Context, target string, p Plan, try attempt) *Summary {
	p.defaults()
	if p.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.Duration)
		defer cancel()
	}
	s := newSummary(target)
	var mu sync.Mutex
	one := func() {
		began := time.Now()
		// Not bound to ctx: the end of the run is no failure of an open attempt.
		tctx, cancel := context.WithTimeout(context.Background(), p.Timeout)
		defer cancel()
		who, answer, err := try(tctx)
		mu.Lock()
		defer mu.Unlock()
		s.note(time.Since(began), err)
		if err == nil && who != "" {
			s.Answered[who]++
		}
		if answer != nil {
			s.Last = answer
		}
	}
	if p.Rate > 0 {
		paced(ctx, p, one, func() {
			mu.Lock()
			defer mu.Unlock()
			s.note(0, errOverloaded)
		})
	} else {
		for i := 0; (p.Count == 0 || i < p.Count) && ctx.Err() == nil; i++ {
			one()
		}
	}
	return s.finish()
}

// paced starts attempts at a constant rate.
func paced(ctx context.Context, p Plan, one, overloaded func()) {
	var wg sync.WaitGroup
	defer wg.Wait()
	room := make(chan struct{}, p.InFlight)
	tick := time.NewTimer(0)
	defer tick.Stop()
	began := time.Now()
	for i := 0; p.Count == 0 || i < p.Count; i++ {
		tick.Reset(time.Until(began.Add(time.Duration(float64(i) / p.Rate * float64(time.Second)))))
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case room <- struct{}{}:
			wg.Go(func() {
				defer func() { <-room }()
				one()
			})
		default:
			overloaded()
		}
	}
}

// HTTPOptions say how requests are made.
type HTTPOptions struct {
	KeepAlive bool   // reuse connections; else every request has its own
	HTTP2     bool   // HTTP/2 without TLS
	Method    string // empty means GET, or POST with a body
	Body      string
	Header    http.Header
	Status    int // expected; zero means 200
}

// Get requests a URL as planned.
func Get(ctx context.Context, target string, p Plan, o HTTPOptions) (*Summary, error) {
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%q is no URL like http://host:port/path", target)
	}
	transport := &http.Transport{DisableKeepAlives: !o.KeepAlive, MaxIdleConnsPerHost: 100}
	if o.HTTP2 {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	var header lastHeader
	s := run(ctx, target, p, func(ctx context.Context) (string, any, error) { return request(ctx, client, target, o, &header) })
	s.Header = header.h
	return s, nil
}

// lastHeader is that of the newest answer.
type lastHeader struct {
	mu sync.Mutex
	h  http.Header
}

func (l *lastHeader) set(h http.Header) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.h = h
}

func request(ctx context.Context, client *http.Client, target string, o HTTPOptions, header *lastHeader) (string, any, error) {
	method := o.Method
	if method == "" {
		method = http.MethodGet
		if o.Body != "" {
			method = http.MethodPost
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(o.Body))
	if err != nil {
		return "", nil, err
	}
	for name, values := range o.Header {
		req.Header[name] = values
		if name == "Host" && len(values) > 0 {
			req.Host = values[0]
		}
	}
	var at stage
	resp, err := client.Do(req.WithContext(httptrace.WithClientTrace(ctx, at.trace())))
	if err != nil {
		return "", nil, at.of(err)
	}
	defer resp.Body.Close()
	header.set(resp.Header)
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", nil, at.of(err)
	}
	want := o.Status
	if want == 0 {
		want = http.StatusOK
	}
	if resp.StatusCode != want {
		return "", nil, statusError(resp.Status)
	}
	var answer any
	if json.Unmarshal(data, &answer) != nil {
		return "", nil, nil
	}
	m, _ := answer.(map[string]any)
	who, _ := m["hostname"].(string)
	return who, answer, nil
}

// stage is how far a request has come; a timeout says in which it came about.
type stage struct{ doing atomic.Value }

func (s *stage) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart:             func(httptrace.DNSStartInfo) { s.doing.Store("looking up the name") },
		ConnectStart:         func(string, string) { s.doing.Store("connecting") },
		GotConn:              func(httptrace.GotConnInfo) { s.doing.Store("sending") },
		WroteRequest:         func(httptrace.WroteRequestInfo) { s.doing.Store("waiting for the answer") },
		GotFirstResponseByte: func() { s.doing.Store("reading the answer") },
	}
}

func (s *stage) of(err error) error {
	doing, ok := s.doing.Load().(string)
	if ok && Reason(err) == timedOut {
		return fmt.Errorf("%w while %s", errLate, doing)
	}
	return err
}

// TCP connects to a port of kind TCP (or First, when first is set), sends data
// and expects it back.
func TCP(ctx context.Context, addr string, p Plan, data string, first bool) *Summary {
	return run(ctx, addr, p, func(ctx context.Context) (string, any, error) {
		if first {
			return "", nil, greet(ctx, addr, data)
		}
		back, err := exchange(ctx, addr, data)
		if err == nil && back != data {
			err = errors.New("other bytes came back")
		}
		return "", nil, err
	})
}

// exchange sends data, ends its direction, and returns all that comes back.
func exchange(ctx context.Context, addr, data string) (string, error) {
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, data); err != nil {
		return "", err
	}
	if err := closeWrite(conn); err != nil {
		return "", err
	}
	back, err := io.ReadAll(conn)
	if err == nil && len(back) == 0 && data != "" {
		err = io.EOF
	}
	return string(back), err
}

// greet waits for the banner before it says anything.
func greet(ctx context.Context, addr, data string) error {
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if line != Banner {
		return fmt.Errorf("the server's first words were %q", line)
	}
	if _, err := io.WriteString(conn, data); err != nil {
		return err
	}
	if err := closeWrite(conn); err != nil {
		return err
	}
	back, err := io.ReadAll(r)
	if err == nil && string(back) != data {
		err = errors.New("other bytes came back")
	}
	return err
}

// UDP sends a datagram and expects it back.
func UDP(ctx context.Context, addr string, p Plan, data string) *Summary {
	return run(ctx, addr, p, func(ctx context.Context) (string, any, error) {
		conn, err := dial(ctx, "udp", addr)
		if err != nil {
			return "", nil, err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, data); err != nil {
			return "", nil, err
		}
		buf := make([]byte, len(data)+1)
		n, err := conn.Read(buf)
		if err == nil && string(buf[:n]) != data {
			err = errors.New("other bytes came back")
		}
		return "", nil, err
	})
}

// dial connects, and gives the connection the deadline of ctx.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return conn, nil
}
