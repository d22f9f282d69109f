package match

// The gRPC codes that a waypoint answers with.
const (
	grpcUnknown          = 2
	grpcDeadlineExceeded = 4
	grpcPermissionDenied = 7
	grpcExhausted        = 8
	grpcUnimplemented    = 12
	grpcInternal         = 13
	grpcUnavailable      = 14
	grpcUnauthenticated  = 16
)

// grpcCodes are by the HTTP status that another client would get.
var grpcCodes = map[int]int{
	400: grpcInternal,
	401: grpcUnauthenticated,
	403: grpcPermissionDenied,
	404: grpcUnimplemented,
	408: grpcDeadlineExceeded,
	413: grpcExhausted,
	429: grpcUnavailable,
	431: grpcExhausted,
	500: grpcUnavailable, // an invalid backend (Gateway API)
	502: grpcUnavailable,
	503: grpcUnavailable,
	504: grpcDeadlineExceeded,
}

// GRPCStatus is what an error that the waypoint itself answers with becomes
// for a gRPC client.
func GRPCStatus(status int) int {
	if code, ok := grpcCodes[status]; ok {
		return code
	}
	return grpcUnknown
}
