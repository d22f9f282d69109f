package bench

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ambit-mesh/ambit/internal/xds"
)

// runNodeProxies is many clients that ask as ztunnel does, count what they are
// given, and forget it: node-proxies ADDRESS ROOTFILE TOKENSFILE RESOURCES. It
// says when all have as many resources, and of every later one when each got it.
func runNodeProxies(ctx context.Context, args []string, ready func()) error {
	root, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	tokens, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	expected, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	ready()
	all := strings.Fields(string(tokens))
	c := &counting{clients: len(all), begin: time.Now(), seen: map[string][]int64{}}
	tasks, ctx := errgroup.WithContext(ctx)
	for i, token := range all {
		tasks.Go(func() error {
			err := nodeProxy(ctx, i, args[0], roots, token, &hearer{counting: c, expected: expected})
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("proxy %d: %w", i, err)
		})
	}
	return tasks.Wait()
}

func nodeProxy(ctx context.Context, i int, address string, roots *x509.CertPool, token string, h *hearer) error {
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(grpccredentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: "istiod.istio-system.svc"})),
		grpc.WithPerRPCCredentials(bearer(token)), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithStaticStreamWindowSize(xds.Window), grpc.WithStaticConnWindowSize(xds.Window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(200<<20), grpc.ForceCodecV2(unread{})))
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	meta, err := structpb.NewStruct(map[string]any{"NODE_NAME": fmt.Sprintf("node-%03d", i%crowd.Nodes), "CLUSTER_ID": "Kubernetes"})
	if err != nil {
		return err
	}
	node := &core.Node{Id: fmt.Sprintf("ztunnel~10.180.0.%d~ztunnel-%d.istio-system~istio-system.svc.cluster.local", i, i), Metadata: meta}
	for _, typ := range []string{xds.TypeAddress, xds.TypeAuthorization} {
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: typ}); err != nil {
			return err
		}
	}
	for {
		var r heard
		if err := stream.RecvMsg(&r); err != nil {
			return err
		}
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.typ, ResponseNonce: r.nonce}); err != nil {
			return err
		}
		if err := h.hear(&r); err != nil {
			return err
		}
	}
}

type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity keeps the token off connections without TLS.
func (bearer) RequireTransportSecurity() bool { return true }

// hearer is what one proxy counts.
type hearer struct {
	*counting
	expected, got int
	whole         bool
}

// counting is what all of them count.
type counting struct {
	clients int
	begin   time.Time

	mu    sync.Mutex
	whole int
	bytes int64
	seen  map[string][]int64
}

func (h *hearer) hear(r *heard) error {
	now := time.Now()
	c := h.counting
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += int64(r.size)
	if r.typ != xds.TypeAddress {
		return nil
	}
	if h.got += r.resources; !h.whole {
		if h.got < h.expected {
			return nil
		}
		h.whole = true
		if c.whole++; c.whole < c.clients {
			return nil
		}
		return printed(synced{Took: now.Sub(c.begin), Bytes: c.bytes})
	}
	for _, name := range r.names {
		c.seen[name] = append(c.seen[name], now.UnixNano())
		if at := c.seen[name]; len(at) == c.clients {
			delete(c.seen, name)
			if err := printed(sighting{Name: name, At: at}); err != nil {
				return err
			}
		}
	}
	return nil
}

func printed(v any) error { return json.NewEncoder(os.Stdout).Encode(v) }

// heard is what is looked at of a response.
type heard struct {
	typ, nonce string
	resources  int
	names      []string // of the first resources
	size       int
}

// unread is protobuf that is not decoded.
type unread struct{}

// Name implements encoding.CodecV2.
func (unread) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (unread) Marshal(v any) (mem.BufferSlice, error) {
	b, err := proto.Marshal(v.(proto.Message))
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// Unmarshal implements encoding.CodecV2.
func (unread) Unmarshal(data mem.BufferSlice, v any) error {
	r := data.Reader()
	defer r.Close()
	return v.(*heard).read(r)
}

var errMalformed = errors.New("malformed response")

// fields visits the fields of a message that have a length.
func fields(b []byte, visit func(n protowire.Number, value []byte) error) error {
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errMalformed
		}
		b = b[size:]
		if typ != protowire.BytesType {
			if size = protowire.ConsumeFieldValue(n, typ, b); size < 0 {
				return errMalformed
			}
			b = b[size:]
			continue
		}
		value, size := protowire.ConsumeBytes(b)
		if size < 0 {
			return errMalformed
		}
		if err := visit(n, value); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// The fields of DeltaDiscoveryResponse and of a Resource in it.
const (
	fieldResource = 2
	fieldType     = 4
	fieldNonce    = 5
	fieldName     = 3
)

// named bounds the names that are looked at: a change is one of few.
const named = 100

// read takes a response from the buffers in which it came, without making one
// text of them.
func (h *heard) read(r *mem.Reader) error {
	h.size = r.Remaining()
	for r.Remaining() > 0 {
		tag, err := binary.ReadUvarint(r)
		if err != nil {
			return err
		}
		if typ := protowire.Type(tag & 7); typ != protowire.BytesType {
			return fmt.Errorf("%w: a field of type %d", errMalformed, typ)
		}
		size, err := binary.ReadUvarint(r)
		if err != nil || size > uint64(r.Remaining()) {
			return errors.Join(errMalformed, err)
		}
		number := protowire.Number(tag >> 3)
		if number == fieldResource {
			h.resources++
		}
		if number != fieldType && number != fieldNonce && (number != fieldResource || h.resources > named) {
			if _, err := r.Discard(int(size)); err != nil {
				return err
			}
			continue
		}
		value := make([]byte, size)
		if _, err := io.ReadFull(r, value); err != nil {
			return err
		}
		if err := h.field(number, value); err != nil {
			return err
		}
	}
	return nil
}

func (h *heard) field(n protowire.Number, value []byte) error {
	switch n {
	case fieldType:
		h.typ = string(value)
	case fieldNonce:
		h.nonce = string(value)
	case fieldResource:
		return fields(value, func(n protowire.Number, name []byte) error {
			if n == fieldName {
				h.names = append(h.names, string(name))
			}
			return nil
		})
	}
	return nil
}
