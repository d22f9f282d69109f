package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"time"
)

// api is the little of the Kubernetes API that bringing up a cluster needs.
// Plain HTTP keeps client-go, and its build time, out of the tool.
type api struct {
	server string
	client *http.Client
}

func (c *Cluster) newAPI() (*api, error) {
	s, err := c.read()
	if err != nil {
		return nil, err
	}
	ca, err := openPKI(filepath.Join(c.dir(), "pki"))
	if err != nil {
		return nil, err
	}
	certPEM, keyPEM, err := ca.issue(subject{name: "ambit-e2e-admin", group: "system:masters"})
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	return &api{server: s.plan().server(), client: &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}},
			DisableKeepAlives: true, // a connection that outlives a restart of the server only delays
		},
	}}, nil
}

// do sends one request; body and out may be nil.
func (a *api) do(ctx context.Context, method, path string, body, out any) error {
	var r io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.server+path, r)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/merge-patch+json")
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

func (a *api) awaitReady(ctx context.Context, timeout time.Duration) error {
	return poll(ctx, timeout, 100*time.Millisecond, func() error {
		return a.do(ctx, http.MethodGet, "/readyz", nil, nil)
	})
}

// kubeNode is what matters of a Node object.
type kubeNode struct {
	Spec struct {
		PodCIDRs []netip.Prefix `json:"podCIDRs"`
	} `json:"spec"`
	Status struct {
		Conditions []condition `json:"conditions"`
	} `json:"status"`
}

type condition struct {
	Type      string    `json:"type"`
	Status    string    `json:"status"`
	Message   string    `json:"message"`
	Heartbeat time.Time `json:"lastHeartbeatTime"`
}

// ready says whether the node is Ready by word given after since.
func (n kubeNode) ready(since time.Time) error {
	for _, c := range n.Status.Conditions {
		switch {
		case c.Type != "Ready":
			continue
		case c.Status != "True":
			return fmt.Errorf("not Ready: %s", c.Message)
		case c.Heartbeat.Before(since.Truncate(time.Second)): // it is told in whole seconds
			return errors.New("no sign of life since it was started")
		}
		return nil
	}
	return errors.New("no Ready condition yet")
}

func (c *Cluster) awaitNodes(ctx context.Context, a *api, s *state, nodes []node) error {
	return c.awaitNodesSince(ctx, a, s, nodes, time.Time{})
}

// awaitNodesSince waits until nodes are Ready, and gives each its pod ranges.
func (c *Cluster) awaitNodesSince(ctx context.Context, a *api, s *state, nodes []node, since time.Time) error {
	for _, n := range nodes {
		err := poll(ctx, 120*time.Second, 200*time.Millisecond, func() error {
			var have kubeNode
			if err := a.do(ctx, http.MethodGet, "/api/v1/nodes/"+n.Name, nil, &have); err != nil {
				return err
			}
			if len(have.Spec.PodCIDRs) == 0 {
				pods := s.plan().podsOf(n.Number)
				patch := map[string]any{"spec": map[string]any{"podCIDR": pods[0], "podCIDRs": pods}}
				if err := a.do(ctx, http.MethodPatch, "/api/v1/nodes/"+n.Name, patch, nil); err != nil {
					return err
				}
			}
			if err := a.renewed(ctx, n.Name, since); err != nil {
				return err
			}
			return have.ready(since)
		})
		if err != nil {
			return fmt.Errorf("node %s: %w%s", n.Name, err, c.lastWords(n.Name, "kubelet"))
		}
		c.log.Info("node is Ready", "node", n.Name)
	}
	return nil
}

// renewed says whether the node renewed its lease after since. The lease knows
// the time to the microsecond, unlike the node's conditions.
func (a *api) renewed(ctx context.Context, name string, since time.Time) error {
	if since.IsZero() {
		return nil
	}
	var lease struct {
		Spec struct{ RenewTime time.Time }
	}
	if err := a.do(ctx, http.MethodGet, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+name, nil, &lease); err != nil {
		return err
	}
	if !lease.Spec.RenewTime.After(since) {
		return errors.New("no sign of life since it was started")
	}
	return nil
}

func (a *api) awaitDeployment(ctx context.Context, namespace, name string, timeout time.Duration) error {
	return poll(ctx, timeout, 200*time.Millisecond, func() error {
		var d struct {
			Spec   struct{ Replicas int }
			Status struct{ AvailableReplicas int }
		}
		path := "/apis/apps/v1/namespaces/" + namespace + "/deployments/" + name
		if err := a.do(ctx, http.MethodGet, path, nil, &d); err != nil {
			return err
		}
		if d.Status.AvailableReplicas < d.Spec.Replicas {
			return fmt.Errorf("%s has %d of %d replicas available", name, d.Status.AvailableReplicas, d.Spec.Replicas)
		}
		return nil
	})
}
