package tracing

import (
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// wish is what a request says about being traced.
type wish uint8

// The wishes. The zero value leaves it to this proxy.
const (
	undecided wish = iota
	wanted
	unwanted
)

type wishKey struct{}

// sampler follows the request's wish, and where it has none its own share.
type sampler struct{ share sdk.Sampler }

// ShouldSample implements sdk.Sampler.
func (s sampler) ShouldSample(p sdk.SamplingParameters) sdk.SamplingResult {
	parent := trace.SpanContextFromContext(p.ParentContext)
	w, _ := p.ParentContext.Value(wishKey{}).(wish)
	if parent.IsValid() && !parent.IsRemote() {
		w = unwanted // a try does as its request
		if parent.IsSampled() {
			w = wanted
		}
	}
	result := sdk.SamplingResult{Decision: sdk.Drop, Tracestate: parent.TraceState()}
	switch w {
	case wanted:
		result.Decision = sdk.RecordAndSample
	case undecided:
		result.Decision = s.share.ShouldSample(p).Decision
	case unwanted:
	}
	return result
}

// Description implements sdk.Sampler.
func (s sampler) Description() string { return "Wish{" + s.share.Description() + "}" }
