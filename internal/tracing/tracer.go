package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config says where spans go and which there are.
type Config struct {
	// Endpoint is the collector's URL with http or https. Empty switches
	// tracing off.
	Endpoint string
	// HTTP sends OTLP as HTTP requests; the default is gRPC.
	HTTP bool
	// Sample is the share, 0 to 1, of requests that are traced though nobody
	// asked for it. A request that comes with a trace context does as that says.
	Sample float64
	// Service, Namespace, Pod and Version describe this proxy; empty ones are
	// left out.
	Service, Namespace, Pod, Version string
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// Tracer makes spans. Nil makes none.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// New makes the tracer that c asks for: nil if it asks for none. The collector
// need not be there. Close must follow.
func New(ctx context.Context, c Config) (*Tracer, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("tracing to %q: want the collector's URL, as http://collector:4317", c.Endpoint)
	}
	if c.Sample < 0 || c.Sample > 1 {
		return nil, fmt.Errorf("tracing a share of %v requests: want 0 to 1", c.Sample)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	e, err := exporter(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("tracing to %s: %w", c.Endpoint, err)
	}
	log := c.Logger.With("component", "tracing")
	p := sdk.NewTracerProvider(
		sdk.WithBatcher(&spoken{SpanExporter: e, log: log, endpoint: c.Endpoint}),
		sdk.WithSampler(sampler{sdk.TraceIDRatioBased(c.Sample)}),
		sdk.WithResource(c.resource()),
	)
	return &Tracer{provider: p, tracer: p.Tracer("ambit")}, nil
}

func exporter(ctx context.Context, c Config) (sdk.SpanExporter, error) {
	if c.HTTP {
		return otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(c.Endpoint))
	}
	return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(c.Endpoint))
}

func (c *Config) resource() *resource.Resource {
	var attrs []attribute.KeyValue
	for _, a := range []struct{ key, value string }{
		{"service.name", c.Service}, {"service.version", c.Version}, {"k8s.namespace.name", c.Namespace}, {"k8s.pod.name", c.Pod},
	} {
		if a.value != "" {
			attrs = append(attrs, attribute.String(a.key, a.value))
		}
	}
	return resource.NewSchemaless(attrs...)
}

// Close sends what is left, until ctx is done. It may be called twice.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("ending tracing: %w", err)
	}
	return nil
}

// spoken tells of a collector's absence once, and of its return.
type spoken struct {
	sdk.SpanExporter
	log      *slog.Logger
	endpoint string

	failing bool // of the batcher's one goroutine
}

// ExportSpans implements sdk.SpanExporter. It returns no error: the SDK would
// give it to a handler that is global.
func (s *spoken) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := s.SpanExporter.ExportSpans(ctx, spans)
	switch {
	case err != nil && !s.failing:
		s.log.Warn("the collector does not take spans; they are dropped", "endpoint", s.endpoint, "error", err)
	case err == nil && s.failing:
		s.log.Info("the collector takes spans again", "endpoint", s.endpoint)
	}
	s.failing = err != nil
	return nil
}
