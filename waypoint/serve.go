package waypoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/drain"
	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/hbone/h2"
	"github.com/ambit-mesh/ambit/internal/linux"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// serve brings the data plane up once the state is known and a certificate is
// there, keeps it until ctx is done, and drains it.
func (p *proxy) serve(ctx context.Context) error {
	state, own, serving := p.readiness.Task("state"), p.readiness.Task("own certificate"), p.readiness.Task("tunnel server")
	select {
	case <-p.source.Synced():
	case <-ctx.Done():
		return nil
	}
	p.log.Info("state received", "workloads", len(p.store.Table().View().Workloads()), "generation", p.store.Table().Generation())
	state.Set(true)
	if p.certify(ctx); ctx.Err() != nil {
		return nil
	}
	own.Set(true)
	l, err := p.listen()
	if err != nil {
		return err
	}
	server := h2.NewServer(h2.ServerConfig{
		Listener: l, Self: p.soon, Aliases: p.aliases, Credentials: p.certs, Handler: p.door.Tunnel, Refused: p.door.Refused, Tuning: p.config.Tuning,
	})
	cut, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var tunnels sync.WaitGroup
	var failed error
	tunnels.Go(func() {
		if failed = server.Serve(cut); failed != nil {
			p.quit()
		}
	})
	serving.Set(true)
	<-ctx.Done()
	err = p.drain(ctx, server, cancel)
	cancel()
	tunnels.Wait()
	return errors.Join(failed, err)
}

// certify waits for the first certificate, as long as it takes.
func (p *proxy) certify(ctx context.Context) {
	for {
		id, err := p.identity(ctx)
		if err == nil {
			_, err = p.certs.Certificate(ctx, id)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		p.log.Warn("no certificate yet", "identity", id.String(), "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// soon is who we are, for a handshake.
func (p *proxy) soon(ctx context.Context) (spiffe.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.identity(ctx)
}

func (p *proxy) listen() (net.Listener, error) {
	at := linux.Wildcard(p.config.TunnelPort)
	if p.config.Listen != "" {
		a, err := netip.ParseAddr(p.config.Listen)
		if err != nil {
			return nil, fmt.Errorf("listening for tunnels: %w", err)
		}
		at = netip.AddrPortFrom(a, p.config.TunnelPort)
	}
	l, err := linux.ListenTCP(context.Background(), nil, at, linux.ListenOptions{KeepAlive: linux.KeepAlive})
	if err != nil {
		return nil, fmt.Errorf("listening for tunnels: %w", err)
	}
	return l, nil
}

// drain tells clients to go, lets requests and connections end, and cuts the
// rest at the deadline.
func (p *proxy) drain(ctx context.Context, server hbone.Server, cut func()) error {
	p.readiness.Task("shutting down")
	p.log.Info("draining", "deadline", p.config.DrainDeadline)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.config.DrainDeadline)
	defer cancel()
	err := drain.All(ctx, []drain.Part{server, p.engine})
	p.log.Info("drained", "complete", ctx.Err() == nil)
	cut()
	if ctx.Err() != nil {
		return nil // what was left has been cut, as the deadline says
	}
	return err
}
