package circuit

import (
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// The defaults.
const (
	DefaultServerErrors  = 5
	DefaultGatewayErrors = 3
	DefaultLocalFailures = 3
	DefaultWindow        = 2 * time.Second
	DefaultEjection      = 5 * time.Second
	// MaxEjection bounds an ejection, unless the base is longer.
	MaxEjection = 5 * time.Minute
)

// Rules are when a circuit trips. The zero value never does.
type Rules struct {
	// ServerErrors, GatewayErrors and LocalFailures are how many in a row trip
	// it; 0 never does. Every gateway error is a server error too and, unless
	// Split, every local failure is a gateway error.
	ServerErrors, GatewayErrors, LocalFailures int
	Split                                      bool
	// Rate trips it also when half of what was sent within Window failed.
	Rate   bool
	Window time.Duration
	// Base is how long the first ejection lasts.
	Base time.Duration
}

// RulesOf fills in the defaults. Where the user set any threshold, only those
// set count, with Istio's default of 5 server errors.
func RulesOf(o mesh.Outlier) Rules {
	if o.Off {
		return Rules{}
	}
	r := Rules{
		ServerErrors: threshold(o.Consecutive5xx, DefaultServerErrors), GatewayErrors: threshold(o.ConsecutiveGateway, 0),
		Split: o.SplitLocalFromRemote, Window: or(o.Interval, DefaultWindow), Base: or(o.BaseEjection, DefaultEjection),
	}
	switch {
	case o.Consecutive5xx == 0 && o.ConsecutiveGateway == 0 && o.ConsecutiveLocal == 0:
		r.Rate, r.GatewayErrors, r.LocalFailures = true, DefaultGatewayErrors, DefaultLocalFailures
	case o.SplitLocalFromRemote:
		r.LocalFailures = threshold(o.ConsecutiveLocal, 5)
	default:
		r.LocalFailures = threshold(o.ConsecutiveLocal, 0)
	}
	return r
}

// threshold is the user's; a negative one switches the rule off.
func threshold(n, otherwise int) int {
	if n == 0 {
		n = otherwise
	}
	return max(n, 0)
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
