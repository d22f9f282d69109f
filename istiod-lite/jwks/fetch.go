package jwks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// maxText bounds what is read of an answer.
const maxText = 1 << 20

// discovery ends the place of an issuer's own description (OpenID Connect
// Discovery 1.0, 4).
const discovery = "/.well-known/openid-configuration"

// fetch gets the keys at a place, or at the one that the description there says.
func (f *Fetcher) fetch(ctx context.Context, place string, timeout time.Duration) (string, error) {
	select {
	case f.slots <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-f.slots }()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	text, err := f.get(ctx, place)
	if err != nil {
		return "", err
	}
	issuer, described := strings.CutSuffix(place, discovery)
	if !described {
		return text, check(text)
	}
	var d struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil || d.Keys == "" {
		return "", errors.New("the issuer's description does not say where its keys are")
	}
	if strings.TrimSuffix(d.Issuer, "/") != issuer {
		return "", fmt.Errorf("the description is that of issuer %q", d.Issuer)
	}
	if text, err = f.get(ctx, d.Keys); err != nil {
		return "", err
	}
	return text, check(text)
}

// check takes a quick look, so that an error page never takes the place of keys.
func check(text string) error {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal([]byte(text), &set) != nil || len(set.Keys) == 0 {
		return errors.New("the answer is not a JWKS")
	}
	return nil
}

func (f *Fetcher) get(ctx context.Context, place string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, place, nil)
	if err != nil {
		return "", err
	}
	if r.URL.Scheme != "https" && r.URL.Scheme != "http" || r.URL.Host == "" {
		return "", fmt.Errorf("%q is not a place to fetch from", place)
	}
	r.Header.Set("Accept", "application/json")
	in, err := f.client.Do(r)
	if err != nil {
		return "", err
	}
	defer in.Body.Close()
	if in.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answered %s", place, in.Status)
	}
	text, err := io.ReadAll(io.LimitReader(in.Body, maxText+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading %s: %w", place, err)
	case len(text) > maxText:
		return "", fmt.Errorf("%s answered more than %d bytes", place, maxText)
	}
	return string(text), nil
}

// newClient makes a client that looks at the addresses it connects to: who may
// write a RequestAuthentication must not come by it to what only the control
// plane reaches.
func newClient(cfg Config) *http.Client {
	d := &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if blocked(cfg, to.Addr().Unmap().WithZone("")) {
			return fmt.Errorf("address %s is not one to fetch keys from", to.Addr())
		}
		return nil
	}}
	return &http.Client{
		Transport: &http.Transport{DialContext: d.DialContext, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: time.Minute},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			switch {
			case len(via) >= 5:
				return errors.New("too many redirects")
			case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
				return errors.New("a redirect leaves TLS")
			}
			return nil
		},
	}
}

// metadata are addresses of clouds' metadata that no range tells.
var metadata = []netip.Prefix{
	netip.MustParsePrefix("fd00:ec2::254/128"),  // AWS
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle Cloud
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
}

func blocked(cfg Config, a netip.Addr) bool {
	for _, p := range cfg.Blocked {
		if p.Contains(a) {
			return true
		}
	}
	if cfg.AllowLocal {
		return false
	}
	for _, p := range metadata {
		if p.Contains(a) {
			return true
		}
	}
	return a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast()
}
