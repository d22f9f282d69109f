package h2

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/door"
)

type dialer struct {
	cfg    Config
	report *door.Report
}

// NewDialer makes client tunnels.
func NewDialer(cfg Config) hbone.Dialer {
	cfg.Tuning.fill(100)
	def(&cfg.ConnectTimeout, 10*time.Second)
	if cfg.Connect == nil {
		cfg.Connect = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", to.String())
		}
	}
	return &dialer{cfg, door.NewReport(cfg.Tuning.Logger, cfg.Tuning.Abused)}
}

// Dial implements hbone.Dialer. It returns when the server has accepted us.
func (d *dialer) Dial(ctx context.Context, to hbone.Target) (hbone.Tunnel, error) {
	c, err := d.connect(ctx, to.Address)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", to.Address, err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.cfg.HandshakeTimeout)
	defer cancel()
	t, err := d.tunnel(ctx, c, to)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("opening tunnel to %s: %w", to.Address, err)
	}
	return t, nil
}

func (d *dialer) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.ConnectTimeout)
	defer cancel()
	return d.cfg.Connect(ctx, to)
}

func (d *dialer) tunnel(ctx context.Context, c net.Conn, to hbone.Target) (*tunnel, error) {
	cfg, err := d.cfg.Credentials.Client(ctx, to.Self, to.Accept)
	if err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", to.Self, err)
	}
	w := newWire(c)
	tc, peer, err := secure(ctx, w, cfg, tls.Client)
	if err != nil {
		return nil, err
	}
	t := newTunnel(tc, w, d.cfg.Tuning, true)
	t.peer, t.report = peer, d.report
	t.start()
	d.cfg.Credentials.Watch(to.Self, peer, t.ended_, t.cut)
	if err := t.await(ctx); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}
