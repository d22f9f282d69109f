package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/telemetry"
	"github.com/ambit-mesh/ambit/manifests"
)

// Access is one record of a node proxy's access log: one connection, as one
// end saw it.
type Access struct {
	Node      string
	Direction string
	Source, Destination,
	SourceIdentity, DestinationIdentity,
	SourceAddr, DestinationAddr,
	Service, Policy, Reason, Error string
	// Cut is why the proxy ended it, if it did.
	Cut string
}

// AccessLog is what the node proxies recorded since a time, on every node.
func (s *Stage) AccessLog(ctx context.Context, since time.Time) ([]Access, error) {
	pods, err := s.Pods(ctx, manifests.Namespace, "app=ztunnel")
	if err != nil {
		return nil, err
	}
	var all []Access
	for _, p := range pods {
		text, err := s.Logs(ctx, p.Namespace, p.Name, "istio-proxy", since)
		if err != nil {
			return nil, fmt.Errorf("reading the log of %s: %w", p.Name, err)
		}
		for line := range strings.Lines(text) {
			if a, ok := parseAccess(line); ok {
				a.Node = p.Spec.NodeName
				all = append(all, a)
			}
		}
	}
	return all, nil
}

// parseAccess reads one line of the log; ok is false for other lines.
func parseAccess(line string) (Access, bool) {
	var m map[string]any
	if json.Unmarshal([]byte(line), &m) != nil || m["component"] != "access" {
		return Access{}, false
	}
	text := func(key string) string { v, _ := m[key].(string); return v }
	return Access{
		Direction: text(telemetry.KeyDirection),
		Source:    text(telemetry.KeySourceWorkload), Destination: text(telemetry.KeyDestinationWorkload),
		SourceIdentity: text(telemetry.KeySourceIdentity), DestinationIdentity: text(telemetry.KeyDestinationIdentity),
		SourceAddr: text(telemetry.KeySourceAddr), DestinationAddr: text(telemetry.KeyDestinationAddr),
		Service: text(telemetry.KeyDestinationService), Policy: text(telemetry.KeyPolicy),
		Reason: text(telemetry.KeyReason), Error: text(telemetry.KeyError),
		Cut: text(telemetry.KeyCut),
	}, true
}

// AccessUntil waits for a record that is wanted.
func (s *Stage) AccessUntil(ctx context.Context, since time.Time, what string, want func(Access) bool) (Access, error) {
	var found Access
	err := Within(ctx, 30*time.Second, func(ctx context.Context) error {
		all, err := s.AccessLog(ctx, since)
		if err != nil {
			return err
		}
		for _, a := range all {
			if want(a) {
				found = a
				return nil
			}
		}
		return fmt.Errorf("no access record %s among %d", what, len(all))
	})
	return found, err
}
