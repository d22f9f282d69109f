package telemetry

import (
	"net/netip"
	"time"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// Exchange is one request and its answer, as a waypoint saw it. Everything but
// ID and Start may be missing.
type Exchange struct {
	// ID is the decision's short id, in the access log and, of a denied
	// request, in a header of the answer.
	ID    string
	Start time.Time
	// Generation is the configuration that decided.
	Generation uint64

	Source      *mesh.Workload
	SourceID    spiffe.ID
	SourceAddr  netip.AddrPort
	Service     *mesh.Service
	Port        uint16
	Destination *mesh.Workload
	// DestinationID is set where the backend was reached by HBONE.
	DestinationID   spiffe.ID
	DestinationAddr netip.AddrPort

	// Protocol is "http", "grpc" or "tcp"; Proto is the client's, as "HTTP/2.0".
	Protocol, Proto      string
	Method, Host, Path   string
	Status               int
	GRPCStatus           int // -1 if it is not gRPC
	Flag                 ExchangeFlag
	RequestBytes         uint64
	ResponseBytes        uint64
	RequestMessages      uint64 // of gRPC
	ResponseMessages     uint64
	Duration             time.Duration
	TraceParent, TraceID string
	Route                mesh.RouteKey
	Rule                 int // -1 without a route
	RuleName             string
	Backend              mesh.ServiceKey
	BackendPort          uint16
	Attempts             []Attempt
	Policy               mesh.PolicyKey
	Reason               string
	Err                  error
}

// Attempt is one try at an endpoint.
type Attempt struct {
	Workload string // UID
	Addr     netip.AddrPort
	Status   int
	Err      string
	Duration time.Duration
}

// ExchangeFlag is Envoy's response flag, as Istio's dashboards know them.
type ExchangeFlag string

// The flags of exchanges.
const (
	ExchangeOK             ExchangeFlag = "-"
	ExchangeNoRoute        ExchangeFlag = "NR"
	ExchangeNoHealthy      ExchangeFlag = "UH"
	ExchangeConnectFailed  ExchangeFlag = "UF"
	ExchangeBackendEnded   ExchangeFlag = "UC"
	ExchangeTimeout        ExchangeFlag = "UT"
	ExchangeRetriesSpent   ExchangeFlag = "URX"
	ExchangeOverflow       ExchangeFlag = "UO"
	ExchangeDenied         ExchangeFlag = "DENY"
	ExchangeUnauthorized   ExchangeFlag = "UAEX" // by an external authorizer
	ExchangeBadToken       ExchangeFlag = "JWT"
	ExchangeClientEnded    ExchangeFlag = "DC"
	ExchangeClientProtocol ExchangeFlag = "DPE"
	ExchangeInvalidBackend ExchangeFlag = "NC"
)
