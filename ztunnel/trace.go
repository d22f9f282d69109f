package ztunnel

import (
	"context"
	"time"

	"github.com/ambit-mesh/ambit/internal/tracing"
)

// tracing describes this proxy to the collector.
func (p *proxy) tracing() tracing.Config {
	c := p.config.Tracing
	c.Service, c.Namespace, c.Pod, c.Version, c.Logger = "ztunnel", p.config.Self.Namespace, p.config.Self.Name, p.config.Version, p.config.Logger
	return c
}

// trace sends what spans are left, when the data plane has ended.
func (p *proxy) trace(ctx context.Context) error {
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
	defer cancel()
	if err := p.tracer.Close(ctx); err != nil {
		p.log.Warn("the last spans are lost", "error", err)
	}
	return nil
}

// flushLimit bounds the sending of the last spans.
const flushLimit = 2 * time.Second
