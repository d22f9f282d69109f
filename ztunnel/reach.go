package ztunnel

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/internal/hbone"
	"github.com/ambit-mesh/ambit/internal/health"
	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/spiffe"
	"github.com/ambit-mesh/ambit/internal/view"
	"github.com/ambit-mesh/ambit/ztunnel/inpod"
	"github.com/ambit-mesh/ambit/ztunnel/podproxy"
)

// The bounds of one probe of the other nodes: how many nodes, how many pods of
// each before it counts as out of reach, and how long each may take.
const (
	reachNodes = 64
	reachPods  = 2
	reachLimit = 3 * time.Second
)

// reach makes a tunnel from a pod of this node to one of each other node, as
// a connection would, and ends it without a stream. Nothing is told of nodes
// without a captured pod, nor if none is here.
func (p *proxy) reach(ctx context.Context) []health.Reach {
	v := p.store.View()
	from, self := p.prober(v)
	if from == nil {
		return []health.Reach{}
	}
	peers := p.peers(v, self)
	out := make([]health.Reach, len(peers))
	var all sync.WaitGroup
	for i, pods := range peers {
		all.Go(func() {
			for _, to := range pods[:min(len(pods), reachPods)] {
				out[i] = try(ctx, from, self, to)
				if out[i].Error == "" {
					return
				}
			}
		})
	}
	all.Wait()
	return out
}

// prober is a pod of this node that can make tunnels.
func (p *proxy) prober(v *view.View) (*podproxy.Proxy, *mesh.Workload) {
	for _, s := range p.pods.list() {
		proxy, ok := s.Proxy.(*podproxy.Proxy)
		w := v.WorkloadByAccount(s.Pod.Namespace, s.Pod.Name, s.Pod.ServiceAccount)
		if ok && s.State == inpod.Up && w != nil {
			return proxy, w
		}
	}
	return nil, nil
}

// peers are the captured pods of some other nodes, by node, in an order of
// chance.
func (p *proxy) peers(v *view.View, self *mesh.Workload) [][]*mesh.Workload {
	byNode := map[string][]*mesh.Workload{}
	for _, w := range v.Workloads() {
		if w.Node == "" || w.Node == self.Node || w.Network != self.Network || w.Tunnel != mesh.TunnelHBONE || w.NativeTunnel || w.Unhealthy || len(w.Addresses) == 0 {
			continue
		}
		byNode[w.Node] = append(byNode[w.Node], w)
	}
	var out [][]*mesh.Workload
	for _, pods := range byNode {
		rand.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
		out = append(out, pods)
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	out = out[:min(len(out), reachNodes)]
	slices.SortFunc(out, func(a, b []*mesh.Workload) int { return strings.Compare(a[0].Node, b[0].Node) })
	return out
}

func try(ctx context.Context, from *podproxy.Proxy, self, to *mesh.Workload) health.Reach {
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	at := netip.AddrPortFrom(to.Addresses[0], hbone.Port)
	r := health.Reach{Node: to.Node, From: self.Namespace + "/" + self.Name, To: to.Namespace + "/" + to.Name, Address: at.String()}
	err := from.Reach(ctx, hbone.Target{Address: at, Self: self.Identity(), Accept: []spiffe.ID{to.Identity()}, Workload: to.UID})
	if err != nil {
		r.Error, r.Silent = err.Error(), silent(err)
	}
	return r
}

// silent reports whether not even TCP was answered.
func silent(err error) bool {
	dial, ok := errors.AsType[*net.OpError](err)
	return ok && dial.Op == "dial" && dial.Timeout()
}
