package xds

import (
	"slices"
	"strconv"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/types/known/anypb"
)

// messages turns responses into what is sent. One that many clients get is
// encoded once, and its bytes are shared by all of their connections: the whole
// of a large mesh is megabytes, and hundreds of clients may come back at once.
type messages struct {
	identifier string
	// compressing is set if streams may have compressors of their own, so that
	// no bytes can be shared.
	compressing bool

	mu   sync.Mutex // held while encoding: the others wait for the result
	last []*encoded
}

type encoded struct {
	response
	message grpc.PreparedMsg
	size    int
}

func newMessages(identifier string) *messages {
	return &messages{identifier: identifier, compressing: encoding.GetCompressor("gzip") != nil}
}

// of is a message for SendMsg, with the size of the bodies in it.
func (m *messages) of(stream grpc.Stream, r response) (message any, size int, err error) {
	if !r.shared || m.compressing {
		message, size := m.message(r)
		return message, size, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.last {
		if e.same(r) {
			return &e.message, e.size, nil
		}
	}
	e := &encoded{response: r}
	plain, size := m.message(r)
	if err := e.message.Encode(stream, plain); err != nil {
		return nil, 0, err
	}
	e.size = size
	m.last = append(m.last, e)
	if len(m.last) > remembered {
		m.last = slices.Delete(m.last, 0, 1)
	}
	return &e.message, e.size, nil
}

// same compares contents, by the pointers of resources.
func (e *encoded) same(r response) bool {
	return e.typ == r.typ && e.nonce == r.nonce && e.generation == r.generation &&
		slices.Equal(e.upserts, r.upserts) && slices.Equal(e.removed, r.removed)
}

// forget drops what was encoded, once there is something newer.
func (m *messages) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = nil
}

func (m *messages) message(r response) (*discovery.DeltaDiscoveryResponse, int) {
	msg := &discovery.DeltaDiscoveryResponse{
		TypeUrl:           r.typ,
		RemovedResources:  r.removed,
		Nonce:             r.nonce,
		SystemVersionInfo: strconv.FormatUint(r.generation, 10),
		ControlPlane:      &core.ControlPlane{Identifier: m.identifier},
	}
	size := 0
	for _, u := range r.upserts {
		size += len(u.Body)
		msg.Resources = append(msg.Resources, &discovery.Resource{
			Name: u.Name, Version: u.Version, Aliases: u.Aliases,
			Resource: &anypb.Any{TypeUrl: r.typ, Value: u.Body},
		})
	}
	return msg, size
}
