package balance

import (
	"fmt"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// Why is why there is no endpoint.
type Why uint8

// The causes, by what a user would look for first.
const (
	// WhyTried: all that are usable are in Query.Avoid.
	WhyTried Why = iota
	WhyNone
	WhyUnready
	WhyFar
	WhyPort
	WhyNetwork
	WhyAddress
	WhyCapacity
)

// String is the end of a sentence about a service without an endpoint.
func (w Why) String() string {
	switch w {
	case WhyTried:
		return "every one was tried already"
	case WhyNone:
		return "it has none"
	case WhyUnready:
		return "none is ready"
	case WhyFar:
		return "none is where its policy of locality demands"
	case WhyPort:
		return "none serves the port"
	case WhyNetwork:
		return "they are in another network: gateways between networks are not supported"
	case WhyAddress:
		return "none has an address of the service's family"
	case WhyCapacity:
	}
	return "all have capacity 0"
}

// UnavailableError says that a service has no endpoint for the request.
type UnavailableError struct {
	Service mesh.ServiceKey
	Port    uint16
	Why     Why
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("service %s has no endpoint to use for port %d: %s", e.Service, e.Port, e.Why)
}

// OverflowError says that a bound of the service's connectionPool, or the
// budget of retries, is reached.
type OverflowError struct {
	Service mesh.ServiceKey
	Port    uint16
	// Bound is the field's name with its value.
	Bound string
}

func (e *OverflowError) Error() string {
	return fmt.Sprintf("service %s port %d: %s is reached", e.Service, e.Port, e.Bound)
}
