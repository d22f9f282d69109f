package mesh

import "time"

// Traffic is how a waypoint treats the endpoints of one service: what a
// DestinationRule, an XBackendTrafficPolicy and the service's annotations say
// together. A service without any has no Traffic.
type Traffic struct {
	Service ServiceKey
	// Sources names the objects it was made of, as "kind/namespace/name", for
	// explanations.
	Sources []string
	Settings
	// Ports are the settings of ports that differ, whole.
	Ports map[uint16]Settings
}

// Settings are those of one service or port. Zero values are the defaults that
// waypoint/balance documents.
type Settings struct {
	Balancer    Balancer
	Connections Connections
	Outlier     Outlier
	TLS         OriginateTLS
	// RetryBudget is nil for no bound (GEP-3388).
	RetryBudget *RetryBudget
}

// For gives the settings of a port.
func (t *Traffic) For(port uint16) Settings {
	if t == nil {
		return Settings{}
	}
	if s, ok := t.Ports[port]; ok {
		return s
	}
	return t.Settings
}

// BalancerKind is how an endpoint is chosen.
type BalancerKind uint8

// The kinds. The zero value is the better of two random choices, by requests
// in flight and latency.
const (
	BalanceLeast BalancerKind = iota
	BalanceRoundRobin
	BalanceRandom
	BalanceHash
	// BalanceOriginal keeps the address that the client dialled.
	BalanceOriginal
)

// Balancer chooses endpoints.
type Balancer struct {
	Kind BalancerKind
	Hash HashKey
	// Warmup ramps a new endpoint's share up; zero does not.
	Warmup time.Duration
	// PreferLocal prefers endpoints of the waypoint's region, zone and subzone,
	// in a service that has no preference of its own; Failover names the region
	// that comes next.
	PreferLocal bool
	Failover    []LocalityFailover
	// NoLocality switches preference by locality off.
	NoLocality bool
}

// LocalityFailover says where a region's traffic goes when it has no endpoint.
type LocalityFailover struct{ From, To string }

// HashKey is what consistent hashing hashes; exactly one is set.
type HashKey struct {
	Header, Query string
	Cookie        string
	CookiePath    string
	CookieTTL     time.Duration
	SourceIP      bool
}

// Connections bounds what goes to a service from one waypoint. Zeros are no
// bound, or the default that waypoint/forward documents.
type Connections struct {
	MaxConnections   int
	MaxPending       int // requests waiting for a connection
	MaxRequests      int // in flight
	MaxPerConnection int // requests before a connection is closed
	MaxRetries       int // in flight
	ConnectTimeout   time.Duration
	IdleTimeout      time.Duration
}

// Outlier is when an endpoint is taken for sick. Zeros are the defaults that
// waypoint/circuit documents; a negative threshold switches that one off, Off
// the whole.
type Outlier struct {
	Off                  bool
	Consecutive5xx       int
	ConsecutiveGateway   int
	ConsecutiveLocal     int
	Interval             time.Duration
	BaseEjection         time.Duration
	MaxEjectionPercent   int
	MinHealthPercent     int
	SplitLocalFromRemote bool
}

// OriginateTLS is TLS towards endpoints outside the mesh.
type OriginateTLS struct {
	// On starts TLS.
	On bool
	// SNI and SubjectAltNames are what the server must be; CA is PEM, empty is
	// the system's roots.
	SNI             string
	SubjectAltNames []string
	CA              string
	// CertPEM and KeyPEM are a client certificate.
	CertPEM, KeyPEM string
	Insecure        bool
}

// RetryBudget bounds retries to a share of the requests within Interval, while
// they are more than MinCount within MinInterval (GEP-3388). Without an
// Interval it is a share of what is in flight, and MinCount is of those.
type RetryBudget struct {
	Percent     int
	Interval    time.Duration
	MinCount    int
	MinInterval time.Duration
}
