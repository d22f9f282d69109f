package xds

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"
)

type clientStream = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient

// connect runs one connection to its end. It reports whether the server
// answered at all, which makes the end routine.
func (c *Client) connect(ctx context.Context) (contact bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := c.dial()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if c.cfg.ClusterID != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "clusterid", c.cfg.ClusterID)
	}
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return false, fmt.Errorf("opening stream: %w", err)
	}
	first, err := c.subscriptions()
	if err != nil {
		return false, err
	}
	// One goroutine sends, so that asking never waits for reading: the server
	// may answer before it has read all we asked.
	out := make(chan *discovery.DeltaDiscoveryRequest, 16)
	sender := make(chan error, 1)
	go func() {
		defer cancel() // a sender that cannot send ends the stream
		sender <- send(ctx, stream, first, out)
	}()
	contact, err = c.consume(ctx, stream, out)
	cancel()
	if sendErr := <-sender; err == nil {
		err = sendErr
	}
	return contact, err
}

// send writes the initial requests, then what comes, until ctx ends.
func send(ctx context.Context, stream clientStream, first []*discovery.DeltaDiscoveryRequest, out <-chan *discovery.DeltaDiscoveryRequest) error {
	for _, r := range first {
		if err := stream.Send(r); err != nil {
			return fmt.Errorf("subscribing: %w", err)
		}
	}
	for {
		select {
		case r := <-out:
			if err := stream.Send(r); err != nil {
				return fmt.Errorf("answering: %w", err)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// consume gives responses to the receiver and answers each.
func (c *Client) consume(ctx context.Context, stream clientStream, out chan<- *discovery.DeltaDiscoveryRequest) (contact bool, err error) {
	for {
		resp, err := stream.Recv()
		if err != nil {
			return contact, fmt.Errorf("reading updates: %w", err)
		}
		if !contact {
			contact = true
			c.status.connected()
			c.cfg.Logger.Info("control plane connected", "address", c.cfg.Address, "server", resp.GetControlPlane().GetIdentifier())
		}
		c.status.contact()
		u, bad := parse(resp)
		answer := &discovery.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
		if text := c.receive(ctx, u, bad); text != "" {
			c.status.rejected()
			answer.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: text}
		}
		select {
		case out <- answer:
		case <-ctx.Done():
			return contact, ctx.Err()
		}
	}
}

// parse takes a response apart. A resource whose body is of another type than
// the response is rejected here.
func parse(resp *discovery.DeltaDiscoveryResponse) (Update, []Rejection) {
	u := Update{Type: resp.GetTypeUrl(), Removed: resp.GetRemovedResources()}
	u.Generation, _ = strconv.ParseUint(resp.GetSystemVersionInfo(), 10, 64)
	var bad []Rejection
	for _, r := range resp.GetResources() {
		body := r.GetResource()
		switch {
		case r.GetName() == "":
			bad = append(bad, Rejection{Name: "", Reason: fmt.Errorf("a resource without a name")})
		case body == nil:
			// A heartbeat: nothing new about it.
		case body.GetTypeUrl() != resp.GetTypeUrl():
			bad = append(bad, Rejection{Name: r.GetName(), Reason: fmt.Errorf("is a %q", body.GetTypeUrl())})
		default:
			u.Upserts = append(u.Upserts, Resource{Name: r.GetName(), Version: r.GetVersion(), Aliases: r.GetAliases(), Body: body.GetValue()})
		}
	}
	return u, bad
}

// subscriptions are the initial requests, one per type, with what we hold.
func (c *Client) subscriptions() ([]*discovery.DeltaDiscoveryRequest, error) {
	meta, err := structpb.NewStruct(c.cfg.Node.Metadata)
	if err != nil {
		return nil, fmt.Errorf("node metadata: %w", err)
	}
	node := &core.Node{Id: c.cfg.Node.ID, Metadata: meta}
	var out []*discovery.DeltaDiscoveryRequest
	for _, typ := range c.cfg.Types {
		held := make(map[string]string, len(c.held[typ])) // the sender reads it while we go on
		for name, version := range c.held[typ] {
			held[name] = version
		}
		out = append(out, &discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: typ, InitialResourceVersions: held})
	}
	return out, nil
}

// maxReason bounds a rejection's text: the server logs it, and a large one
// would stall the stream.
const maxReason = 4096

// rejections joins reasons as "name: reason; name: reason".
func rejections(rs []Rejection) string {
	var b strings.Builder
	for i, r := range rs {
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprintf(&b, "%s: %v", r.Name, r.Reason)
		if b.Len() > maxReason {
			return fmt.Sprintf("%s… and %d more", strings.ToValidUTF8(b.String()[:maxReason], ""), len(rs)-i-1)
		}
	}
	return b.String()
}
