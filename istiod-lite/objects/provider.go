package objects

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Provider is an external authorizer, as it was written.
type Provider struct {
	// Provider has everything but where it is: Service and Host are empty.
	mesh.Provider
	// At is "[namespace/]hostname".
	At string
	// Problem says why it cannot be used; empty if it can.
	Problem string
}

// extensionProvider is an entry of extensionProviders. Those for telemetry have
// neither of the first two.
type extensionProvider struct {
	Name string    `json:"name"`
	GRPC *extAuthz `json:"envoyExtAuthzGrpc"`
	HTTP *extAuthz `json:"envoyExtAuthzHttp"`

	OpenTelemetry *openTelemetry `json:"opentelemetry"`
}

// extAuthz has the fields of both kinds.
type extAuthz struct {
	Service       string `json:"service"`
	Port          uint32 `json:"port"`
	Timeout       string `json:"timeout"`
	FailOpen      bool   `json:"failOpen"`
	StatusOnError string `json:"statusOnError"`
	PathPrefix    string `json:"pathPrefix"`

	IncludeHeaders    []string          `json:"includeHeadersInCheck"` // an older name of the next
	IncludeRequest    []string          `json:"includeRequestHeadersInCheck"`
	IncludeAdditional map[string]string `json:"includeAdditionalHeadersInCheck"`
	UpstreamOnAllow   []string          `json:"headersToUpstreamOnAllow"`
	DownstreamOnAllow []string          `json:"headersToDownstreamOnAllow"`
	DownstreamOnDeny  []string          `json:"headersToDownstreamOnDeny"`

	IncludeBody *struct {
		MaxBytes     uint32 `json:"maxRequestBytes"`
		AllowPartial bool   `json:"allowPartialMessage"`
		PackAsBytes  bool   `json:"packAsBytes"`
	} `json:"includeRequestBodyInCheck"`
}

func (e extensionProvider) read() []Provider {
	x, grpc := e.HTTP, false
	if e.GRPC != nil {
		x, grpc = e.GRPC, true
	}
	if x == nil {
		return nil
	}
	p := Provider{At: x.Service, Provider: mesh.Provider{
		Name: e.Name, GRPC: grpc, Port: uint16(x.Port), FailOpen: x.FailOpen, PathPrefix: x.PathPrefix,
		IncludeRequestHeaders:      patterns(append(x.IncludeHeaders, x.IncludeRequest...)),
		HeadersToUpstream:          patterns(x.UpstreamOnAllow),
		HeadersToDownstreamOnDeny:  patterns(x.DownstreamOnDeny),
		HeadersToDownstreamOnAllow: patterns(x.DownstreamOnAllow),
	}}
	for _, name := range slices.Sorted(maps.Keys(x.IncludeAdditional)) {
		p.AddHeaders = append(p.AddHeaders, mesh.Header{Name: name, Value: x.IncludeAdditional[name]})
	}
	if b := x.IncludeBody; b != nil {
		p.MaxBody, p.AllowPartial, p.PackAsBytes = int(b.MaxBytes), b.AllowPartial, b.PackAsBytes
	}
	p.Problem = p.parse(x)
	return []Provider{p}
}

// parse reads what is written as text, and says what cannot be used.
func (p *Provider) parse(x *extAuthz) string {
	if x.Service == "" {
		return "service is not named"
	}
	if x.Port == 0 || x.Port > 65535 {
		return fmt.Sprintf("port %d is not a port", x.Port)
	}
	if x.Timeout != "" {
		d, err := time.ParseDuration(x.Timeout)
		if err != nil || d <= 0 {
			return fmt.Sprintf("timeout %q is not a duration", x.Timeout)
		}
		p.Timeout = d
	}
	if x.StatusOnError != "" {
		n, err := strconv.Atoi(x.StatusOnError)
		if err != nil || n < 400 || n > 599 {
			return fmt.Sprintf("statusOnError %q is not the status of an error", x.StatusOnError)
		}
		p.StatusOnError = n
	}
	if x.PathPrefix != "" && !strings.HasPrefix(x.PathPrefix, "/") {
		return fmt.Sprintf("pathPrefix %q does not begin with a slash", x.PathPrefix)
	}
	return ""
}

// patterns are the names of headers, by exact text, prefix or suffix.
func patterns(names []string) []mesh.StringMatch {
	var out []mesh.StringMatch
	for _, n := range names {
		m := mesh.StringMatch{Value: n}
		switch {
		case strings.HasPrefix(n, "*"):
			m = mesh.StringMatch{Op: mesh.OpSuffix, Value: n[1:]}
		case strings.HasSuffix(n, "*"):
			m = mesh.StringMatch{Op: mesh.OpPrefix, Value: n[:len(n)-1]}
		}
		out = append(out, m)
	}
	return out
}
