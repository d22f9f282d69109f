package objects

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Tracing is where waypoints send spans. The zero value is nowhere.
type Tracing struct {
	// Endpoint is the collector's URL.
	Endpoint string
	// HTTP sends OTLP as HTTP requests, in place of gRPC.
	HTTP bool
	// Sample is the share of requests, 0 to 1, that are traced unasked.
	Sample float64
}

// openTelemetry is an extensionProvider that takes spans.
type openTelemetry struct {
	Service string `json:"service"`
	Port    uint32 `json:"port"`
	HTTP    *struct {
		Path string `json:"path"`
	} `json:"http"`
}

// defaultSampling is Istio's, in percent.
const defaultSampling = 1

// tracing is what defaultProviders chooses of the providers: the first that
// takes spans. One that cannot be reached as it is written is none.
func tracing(providers []extensionProvider, chosen []string, percent *float64) Tracing {
	i := slices.IndexFunc(providers, func(p extensionProvider) bool {
		return p.OpenTelemetry != nil && slices.Contains(chosen, p.Name)
	})
	if i < 0 {
		return Tracing{}
	}
	o := providers[i].OpenTelemetry
	host := o.Service[strings.LastIndexByte(o.Service, '/')+1:]
	if host == "" || o.Port == 0 || o.Port > 65535 {
		return Tracing{}
	}
	t := Tracing{Endpoint: fmt.Sprintf("http://%s", net.JoinHostPort(host, strconv.Itoa(int(o.Port)))), Sample: defaultSampling / 100.0}
	if percent != nil {
		t.Sample = min(max(*percent, 0), 100) / 100
	}
	if o.HTTP != nil {
		t.HTTP = true
		if path := o.HTTP.Path; path != "" {
			t.Endpoint += "/" + strings.TrimPrefix(path, "/")
		}
	}
	return t
}
