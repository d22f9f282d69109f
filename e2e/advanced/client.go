package advanced

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Request says what a client asks for, and how often.
type Request struct {
	// URL is http, https, grpc or tcp.
	URL string
	// Method of HTTP. Empty means GET.
	Method string
	// Header are NAME:VALUE; names are sent in the case they have here. Host
	// takes the place of the URL's.
	Header []string
	// Message is the body of an HTTP request (empty: none), and what gRPC and
	// TCP servers send back (empty: HelloWorld).
	Message string
	// HTTP2 asks for HTTP/2, without TLS by prior knowledge.
	HTTP2 bool
	// Count is how many requests. Zero means 1.
	Count int
	// Timeout bounds each of them. Zero means 5 s.
	Timeout time.Duration
}

// parallel is how many requests are open at one time.
const parallel = 20

// field is a header of a request.
type field struct{ name, value string }

func (r *Request) fields() ([]field, error) {
	var all []field
	for _, h := range r.Header {
		name, value, ok := strings.Cut(h, ":")
		if !ok || name == "" {
			return nil, fmt.Errorf("header %q: want NAME:VALUE", h)
		}
		all = append(all, field{name, strings.TrimPrefix(value, " ")})
	}
	return all, nil
}

// reply is what came back for one request, in the order in which it is printed.
type reply struct {
	status  string
	headers map[string][]string
	body    string
}

// caller makes one request.
type caller interface {
	call(context.Context) (reply, error)
	close()
}

// Run makes the requests and prints each reply, in the order of the requests:
// what came back as HTTP, then what the server said, then a blank line. An
// error is a request that got no reply, whatever the status; then nothing is
// printed, so that nobody counts the rest.
func Run(ctx context.Context, out io.Writer, r Request) error {
	if r.Count == 0 {
		r.Count = 1
	}
	if r.Timeout == 0 {
		r.Timeout = 5 * time.Second
	}
	c, err := r.caller()
	if err != nil {
		return err
	}
	defer c.close()
	replies := make([]reply, r.Count)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for i := range replies {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, r.Timeout)
			defer cancel()
			var err error
			if replies[i], err = c.call(ctx); err != nil {
				return fmt.Errorf("request %d: %w", i, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, reply := range replies {
		if _, err := io.WriteString(out, reply.print(i)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Request) caller() (caller, error) {
	u, err := url.Parse(r.URL)
	if err != nil {
		return nil, err
	}
	fields, err := r.fields()
	if err != nil {
		return nil, err
	}
	if u.Host == "" {
		return nil, fmt.Errorf("%q names no host", r.URL)
	}
	switch u.Scheme {
	case "http", "https":
		return newHTTPCaller(r, u.Scheme == "https", fields), nil
	case "grpc":
		return newGRPCCaller(u.Host, r.message(), fields)
	case "tcp":
		return tcpCaller{u.Host, r.message()}, nil
	}
	return nil, errors.New("unknown scheme " + u.Scheme + ": want http, https, grpc or tcp")
}

func (r *Request) message() string {
	if r.Message == "" {
		return "HelloWorld"
	}
	return r.Message
}

// print is one block of output. A server's own blank lines would end it early
// and are left out.
func (r reply) print(i int) string {
	var d description
	if r.status != "" {
		fmt.Fprintf(&d, "[%d] StatusCode=%s\n", i, r.status)
	}
	var h description
	h.headers("ResponseHeader", r.headers)
	for line := range strings.Lines(h.String()) {
		fmt.Fprintf(&d, "[%d] %s", i, line)
	}
	for line := range strings.Lines(r.body) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			fmt.Fprintf(&d, "[%d body] %s\n", i, line)
		}
	}
	return d.String() + "\n"
}
