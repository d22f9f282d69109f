package extauthz

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
)

// maxDenial bounds the body of a denial that is passed on.
const maxDenial = 1 << 20

// headerPartial tells whether the body of a question is all of it.
const headerPartial = "X-Envoy-Auth-Partial-Body"

// headerRemove names headers that an HTTP provider wants removed.
const headerRemove = "X-Envoy-Auth-Headers-To-Remove"

var errNotHTTP = errors.New("a connection that is not HTTP cannot be asked about by HTTP")

// askHTTP repeats the head of the request to the provider.
func (a *Asker) askHTTP(ctx context.Context, p *mesh.Provider, q *Question) (Answer, error) {
	if q.Method == "" {
		return Answer{}, errNotHTTP
	}
	client, err := a.httpClient(p)
	if err != nil {
		return Answer{}, err
	}
	r, err := httpQuestion(ctx, p, q)
	if err != nil {
		return Answer{}, err
	}
	in, err := client.Do(r)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // the rest repeats the request
		}
		return Answer{}, err
	}
	defer in.Body.Close()
	switch {
	case in.StatusCode == http.StatusOK:
		return httpAllowed(p, in.Header), nil
	case in.StatusCode >= 500 || in.StatusCode < 200:
		return Answer{}, fmt.Errorf("it answered %s", in.Status)
	}
	body, err := io.ReadAll(io.LimitReader(in.Body, maxDenial))
	if err != nil {
		return Answer{}, fmt.Errorf("reading its answer: %w", err)
	}
	return httpDenied(p, in, body), nil
}

func httpQuestion(ctx context.Context, p *mesh.Provider, q *Question) (*http.Request, error) {
	target := "http://" + addressOf(p).authority() + strings.TrimSuffix(p.PathPrefix, "/") + q.Path
	if q.Query != "" {
		target += "?" + q.Query
	}
	var body io.Reader = http.NoBody
	if p.MaxBody > 0 {
		body = bytes.NewReader(q.Body)
	}
	r, err := http.NewRequestWithContext(ctx, q.Method, target, body)
	if err != nil {
		return nil, err
	}
	r.Host = q.Host
	for name, values := range q.Header {
		if name == "Authorization" || writable(name) && listed(p.IncludeRequestHeaders, name) {
			r.Header[name] = values
		}
	}
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = nil // not ours
	}
	for _, h := range p.AddHeaders {
		r.Header.Set(h.Name, h.Value)
	}
	if p.MaxBody > 0 {
		r.Header.Set(headerPartial, strconv.FormatBool(q.Partial))
	}
	return r, nil
}

func httpAllowed(p *mesh.Provider, header http.Header) Answer {
	out := Answer{Allow: true}
	for name, values := range header {
		for _, v := range values {
			if listed(p.HeadersToUpstream, name) {
				add(&out.Edit.Set, name, v)
			}
			if listed(p.HeadersToDownstreamOnAllow, name) {
				add(&out.Response.Set, name, v)
			}
		}
	}
	for _, line := range header[headerRemove] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); writable(name) {
				out.Edit.Remove = append(out.Edit.Remove, name)
			}
		}
	}
	return out
}

// always are the headers of a denial that are passed on whatever is listed.
var always = map[string]bool{"Www-Authenticate": true, "Location": true}

func httpDenied(p *mesh.Provider, in *http.Response, body []byte) Answer {
	out := Answer{Cause: policy.CauseRefused, Status: in.StatusCode, Body: body}
	for name, values := range in.Header {
		if len(p.HeadersToDownstreamOnDeny) > 0 && !always[name] && !listed(p.HeadersToDownstreamOnDeny, name) {
			continue
		}
		for _, v := range values {
			add(&out.Header, name, v)
		}
	}
	return out
}

// httpClient finds or makes the client of a provider.
func (a *Asker) httpClient(p *mesh.Provider) (*http.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, errClosed
	}
	at := addressOf(p)
	if c, ok := a.http[at]; ok {
		return c, nil
	}
	c := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // it is for the client
		Transport: &http.Transport{
			DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return a.dial(ctx, p) },
			MaxIdleConnsPerHost: 64, IdleConnTimeout: 90 * time.Second, DisableCompression: true,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
	a.http[at] = c
	return c, nil
}
