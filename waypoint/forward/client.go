package forward

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/mesh"
)

// key tells clients apart. The service is part of it, as it may allow further
// identities.
type key struct {
	workload string
	address  netip.AddrPort
	service  mesh.ServiceKey
	tls      bool
}

// client keeps the HTTP connections to one backend.
type client struct {
	to       *Endpoint
	one, two *http.Transport // HTTP/1.1 and HTTP/2
}

// client finds or makes the one for a backend. One that was made for other
// facts is not used again.
func (f *Forwarder) client(to *Endpoint) (*client, error) {
	k := key{workload: to.Workload.UID, address: to.Address, tls: to.TLS.On}
	if to.Service != nil {
		k.service = to.Service.Key()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, &ConnectError{to.Address, hbone.ErrClosed}
	}
	c := f.clients[k]
	if c != nil && c.serves(to) {
		return c, nil
	}
	if c != nil {
		c.retire()
	}
	c = f.newClient(to)
	f.clients[k] = c
	return c, nil
}

// serves says whether connections made for c.to are those that to asks for.
func (c *client) serves(to *Endpoint) bool {
	if c.to.Settings != to.Settings || !sameTLS(&c.to.TLS, &to.TLS) {
		return false
	}
	return c.to.Workload == to.Workload && c.to.Service == to.Service ||
		c.to.Workload.Tunnel == to.Workload.Tunnel && slices.Equal(c.to.accept(), to.accept())
}

// maxHeader bounds the header of an answer.
const maxHeader = 128 << 10

func (f *Forwarder) newClient(to *Endpoint) *client {
	idle := f.config.IdleTimeout
	if to.Settings.IdleTimeout > 0 {
		idle = to.Settings.IdleTimeout
	}
	transport := func(two bool) *http.Transport {
		origin := Origin{Protocols: []string{"http/1.1"}}
		if two {
			origin.Protocols = []string{"h2"}
		}
		t := &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				c, err := f.Dial(ctx, to, origin)
				if err != nil {
					return nil, err
				}
				if two {
					return c.Conn(to.Address), nil
				}
				return lending{c.Conn(to.Address)}, nil
			},
			DisableCompression:     true, // a body passes as it is
			MaxIdleConnsPerHost:    f.config.MaxIdle,
			DisableKeepAlives:      to.Settings.MaxPerConnection == 1,
			IdleConnTimeout:        idle,
			ExpectContinueTimeout:  time.Second,
			MaxResponseHeaderBytes: maxHeader,
			Protocols:              new(http.Protocols),
			HTTP2: &http.HTTP2Config{
				// A backend outside of the mesh has no tunnel that notices its death.
				SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second,
			},
		}
		t.Protocols.SetHTTP1(!two)
		t.Protocols.SetUnencryptedHTTP2(two)
		return t
	}
	return &client{to: to, one: transport(false), two: transport(true)}
}

// retire closes connections as they become idle.
func (c *client) retire() {
	c.one.CloseIdleConnections()
	c.two.CloseIdleConnections()
}
