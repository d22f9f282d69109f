package h3

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

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
	if cfg.Listen == nil {
		cfg.Listen = listen
	}
	def(&cfg.Silence, 250*time.Millisecond)
	return &dialer{cfg, door.NewReport(cfg.Tuning.Logger, cfg.Tuning.Abused)}
}

// listen asks the kernel from which address to is reached.
func listen(ctx context.Context, to netip.AddrPort) (net.PacketConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "udp", to.String())
	if err != nil {
		return nil, err
	}
	from := c.LocalAddr().(*net.UDPAddr)
	c.Close()
	return net.ListenUDP("udp", &net.UDPAddr{IP: from.IP, Zone: from.Zone})
}

// Dial implements hbone.Dialer. It returns when the server has accepted us.
func (d *dialer) Dial(ctx context.Context, to hbone.Target) (hbone.Tunnel, error) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.HandshakeTimeout)
	defer cancel()
	t, err := d.dial(ctx, to)
	if err != nil {
		return nil, fmt.Errorf("opening tunnel to %s: %w", to.Address, err)
	}
	if err := t.await(ctx); err != nil {
		t.Close()
		return nil, fmt.Errorf("opening tunnel to %s: %w", to.Address, err)
	}
	return t, nil
}

func (d *dialer) dial(ctx context.Context, to hbone.Target) (*tunnel, error) {
	cfg, err := d.cfg.Credentials.Client(ctx, to.Self, to.Accept)
	if err != nil {
		return nil, fmt.Errorf("credentials of %s: %w", to.Self, err)
	}
	pc, err := d.cfg.Listen(ctx, to.Address)
	if err != nil {
		return nil, fmt.Errorf("opening a socket: %w", err)
	}
	// A socket for each tunnel, so that it is the pod's and ends with the tunnel.
	tr := &quic.Transport{Conn: pc}
	release := func() { tr.Close(); pc.Close() }
	c, err := tr.Dial(ctx, net.UDPAddrFromAddrPort(to.Address), secured(cfg), d.cfg.quic(-1))
	if err != nil {
		release()
		return nil, fmt.Errorf("quic handshake: %w", err)
	}
	peer, err := peerOf(c)
	if err != nil {
		c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
		release()
		return nil, err
	}
	t := newTunnel(c, peer, d.cfg.Tuning, true)
	t.release, t.report = release, d.report
	t.silence = d.cfg.Silence
	t.silent = func(why error) {
		if d.cfg.Silent != nil {
			d.cfg.Silent(to, why)
		}
	}
	t.start()
	d.cfg.Credentials.Watch(to.Self, peer, t.ended_, t.cut)
	return t, nil
}
