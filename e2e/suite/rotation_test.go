//go:build e2e

package suite

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/ambit/ask"
	"github.com/ambit-mesh/ambit/e2e/stage"
	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/manifests"
)

// TestTheRootIsReplacedUnderLoadAndNobodyNotices: an authority is plugged in,
// another one takes its place, and at last a root of the mesh's own does by `ambit
// ca rotate`; under 500 requests a second, a tenth of them on connections of their
// own, beside 200 idle connections and requests through a waypoint. Two replicas of
// istiod do it, of which the one that leads is killed on the way. Every old root is
// refused afterwards.
func TestTheRootIsReplacedUnderLoadAndNobodyNotices(t *testing.T) {
	onOurNodes(t)
	HoldFor(t, mesh, 3*rotationLasts, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		through := func(s *corev1.Service) { s.Labels = map[string]string{"istio.io/use-waypoint": "waypoint"} }
		if err := errors.Join(sc.Service(ctx, "server", "server"), sc.waypoint(ctx, sc.NS, "waypoint", ""), sc.Service(ctx, "behind", "server", through)); err != nil {
			return err
		}
		if err := Soon(ctx, func(ctx context.Context) error { return sc.Works(ctx, "client", "get", url("behind."+sc.NS, 80)) }); err != nil {
			return err
		}
		old, err := sc.realAuthority(ctx)
		if err != nil {
			return err
		}
		sc.Undo(sc.ownRoot)
		if err := sc.twoReplicas(ctx); err != nil {
			return err
		}
		lasts := (3 * rotationLasts).String() // or until they are stopped; how late an answer may be, only its timeout says
		loaded := time.Now()
		clients := []*running{
			sc.Begin(ctx, "client", "load", "--rate", "430", "--keepalive", "--in-flight", "4000", "--timeout", "20s", "--duration", lasts, url("server."+sc.NS, 80)),
			sc.Begin(ctx, "client", "load", "--rate", "50", "--timeout", "20s", "--duration", lasts, url("server."+sc.NS, 80)),
			sc.Begin(ctx, "client", "load", "--rate", "20", "--timeout", "20s", "--duration", lasts, url("behind."+sc.NS, 80)),
			sc.Begin(ctx, "client", "hold", "--connections", "200", "--every", "5s", "--duration", lasts, address(hosts[0], tcpPort)),
		}
		if err := sc.steady(ctx, clients, 3*time.Second); err != nil {
			return err
		}
		for _, way := range []struct {
			what    string
			replace func(context.Context) (authority, error)
		}{
			{"an authority is plugged in", sc.plugInAnother},
			{"another is plugged in, while a replica is killed", func(ctx context.Context) (authority, error) {
				killed := make(chan error, 1)
				go func() { killed <- sc.killWhoLeads(ctx, "reissue") }()
				fresh, err := sc.plugInAnother(ctx)
				return fresh, errors.Join(err, <-killed)
			}},
			{"ambit ca rotate", sc.rotate},
		} {
			began := time.Now()
			fresh, err := way.replace(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", way.what, err)
			}
			sc.Figure("rotation: "+way.what, "%s", time.Since(began).Round(time.Second))
			if err := sc.steady(ctx, clients, time.Second); err != nil {
				return fmt.Errorf("%s: the load ended before the rotation did: %w", way.what, err)
			}
			if err := sc.onlyTheNewRoot(ctx, hosts[0], fresh, old); err != nil {
				return fmt.Errorf("%s: %w", way.what, err)
			}
			old = fresh
		}
		if err := sc.stop(ctx, "client"); err != nil {
			return err
		}
		if err := sc.allEnded(clients); err != nil {
			return errors.Join(err, sc.troubles(ctx, loaded))
		}
		return nil
	})
}

// troubles shows how often node proxies have said what of connections that failed
// and of certificates, and when first, in the order of the time.
func (sc *Scene) troubles(ctx context.Context, since time.Time) error {
	pods, err := sc.Pods(ctx, manifests.Namespace, "app=ztunnel")
	if err != nil {
		return err
	}
	for _, p := range pods {
		log, err := sc.Logs(ctx, manifests.Namespace, p.Name, "istio-proxy", since)
		if err != nil {
			return err
		}
		said := map[string]int{}
		var first []string
		for line := range strings.Lines(log) {
			var m struct{ Time, Component, Msg, Error, Err string }
			if json.Unmarshal([]byte(line), &m) != nil || m.Error+m.Err == "" && m.Component != "certs" {
				continue
			}
			what := fmt.Sprintf("%s: %s %s", m.Component, m.Msg, numbers.ReplaceAllString(m.Error+m.Err, "…"))
			if said[what]++; said[what] == 1 {
				first = append(first, m.Time+" "+what)
			}
		}
		for _, one := range first {
			_, what, _ := strings.Cut(one, " ")
			sc.t.Logf("%s: %d × from %s", p.Name, said[what], one)
		}
	}
	return nil
}

// numbers are addresses, ports and serials, in which alone one trouble differs
// from the next.
var numbers = regexp.MustCompile(`\[?[0-9a-f:.]*[0-9][0-9a-f:.]*\]?(:[0-9]+)?`)

// allEnded waits for clients and is an error unless all of each succeeded.
func (sc *Scene) allEnded(clients []*running) (err error) {
	for _, c := range clients {
		s, ended := c.End()
		took := ""
		if s.Latency != nil { // pings on held connections have none
			took = fmt.Sprintf(", p99 %s, max %s", s.Latency.P99, s.Latency.Max)
		}
		sc.Figure(strings.TrimPrefix(c.what, "client: echo "), "%d failed of %d%s", s.Failed, s.Attempts, took)
		if ended == nil {
			ended = AllOK(s)
		}
		if ended != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", c.what, ended))
		}
	}
	return err
}

// rotationLasts bounds a rotation: the kubelet takes most of it, to mount the
// new roots.
const rotationLasts = 100 * time.Second

// plugInAnother writes an authority into Secret cacerts, and follows by `ambit ca
// status` how the mesh goes over to it.
func (sc *Scene) plugInAnother(ctx context.Context) (authority, error) {
	data, err := signing(-time.Hour, 24*time.Hour)
	if err != nil {
		return authority{}, err
	}
	fresh, err := authorityOf(data)
	if err != nil {
		return authority{}, err
	}
	if err := sc.plugIn(data)(ctx); apierrors.IsAlreadyExists(err) {
		patch, err := json.Marshal(map[string]any{"data": data})
		if err != nil {
			return authority{}, err
		}
		if _, err := sc.Reach.Client.CoreV1().Secrets(manifests.Namespace).Patch(ctx, "cacerts", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return authority{}, err
		}
	} else if err != nil {
		return authority{}, err
	}
	return fresh, sc.followed(ctx, certs.Fingerprint(fresh.cert))
}

// followed waits until the mesh has gone over to a root, by what `ambit ca status`
// tells of each proxy: that it trusts both roots while certificates are replaced,
// and trusts and uses only the new one in the end.
func (sc *Scene) followed(ctx context.Context, root string) error {
	both := false
	var mounted time.Time
	err := stage.Within(ctx, rotationLasts, func(ctx context.Context) error {
		a, err := authorityStatus(ctx)
		if err != nil {
			return err // of a replica that is away
		}
		if a.Root == root && a.Phase == "spread" && time.Since(mounted) > 2*time.Second {
			mounted = time.Now()
			if err := sc.mount(ctx); err != nil {
				return err
			}
		}
		both = both || a.Root == root && a.Phase == "reissue" && len(a.Proxies) >= 3 && !slices.ContainsFunc(a.Proxies, func(p ask.Truster) bool { return len(p.Trusts) != 2 })
		return only(a, root)
	})
	if err == nil && !both {
		err = errors.New("ambit ca status never told that every proxy trusts both roots")
	}
	return err
}

// only is an error unless a root is the only one, of authority and proxies.
func only(a *ask.Authority, root string) error {
	if a.Root != root || a.Phase != "steady" || len(a.Roots) != 1 || a.Roots[0].Fingerprint != root || !a.Roots[0].Signs || a.Behind() {
		return fmt.Errorf("the authority is not only %s, known by all: %+v", root, a)
	}
	for _, p := range a.Proxies {
		if !slices.Equal(p.Trusts, []string{root}) || slices.ContainsFunc(p.Holds, func(h ask.Holding) bool { return h.Root != root }) {
			return fmt.Errorf("%s does not trust and use only %s: %+v", p.Name, root, p)
		}
	}
	return nil
}

// mount makes kubelets mount what is new at once instead of within a minute: they
// look after a pod when it changes. In the long form nobody hurries them.
func (sc *Scene) mount(ctx context.Context) error {
	if long() {
		return nil
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"ambit.dev/mount":%q}}}`, time.Now().Format(time.RFC3339Nano))
	for namespace, label := range map[string]string{manifests.Namespace: "app=ztunnel", corev1.NamespaceAll: "gateway.istio.io/managed=istio.io-mesh-controller"} {
		pods, err := sc.Pods(ctx, namespace, label)
		if err != nil {
			return err
		}
		for _, p := range pods {
			if _, err := sc.Reach.Client.CoreV1().Pods(p.Namespace).Patch(ctx, p.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
				return err
			}
		}
	}
	return nil
}

// rotate unplugs the authority and asks for a root of the mesh's own.
func (sc *Scene) rotate(ctx context.Context) (authority, error) {
	if err := sc.plugOut(ctx); err != nil {
		return authority{}, err
	}
	if err := Soon(ctx, func(ctx context.Context) error {
		a, err := authorityStatus(ctx)
		if err == nil && a.Plugged {
			err = errors.New("the authority is still said to be plugged in")
		}
		return err
	}); err != nil {
		return authority{}, err
	}
	said, err := sc.Ambit(ctx, "ca", "rotate", "--timeout", rotationLasts.String())
	if err != nil {
		return authority{}, fmt.Errorf("%w\n%s", err, said)
	}
	if err := sc.progressNames(ctx, said); err != nil {
		return authority{}, err
	}
	return sc.realAuthority(ctx)
}

// ownRoot makes sure that the mesh's root is its own again.
func (sc *Scene) ownRoot(ctx context.Context) error {
	return stage.Within(ctx, 110*time.Second, func(ctx context.Context) error {
		own, err := sc.realAuthority(ctx)
		if err := errors.Join(err, sc.plugOut(ctx)); err != nil {
			return err
		}
		a, err := authorityStatus(ctx)
		if err != nil || !a.Plugged && a.Phase == "steady" && a.Root == certs.Fingerprint(own.cert) {
			return err
		}
		said, err := sc.Ambit(ctx, "ca", "rotate", "--timeout", rotationLasts.String())
		return errors.Join(err, fmt.Errorf("the root is only now the mesh's own: %s", said))
	})
}

// authorityStatus is `ambit ca status`.
func authorityStatus(ctx context.Context) (*ask.Authority, error) {
	var a ask.Authority
	return &a, asked(ctx, &a, "ca", "status")
}

// progressNames looks that every step was printed for every proxy.
func (sc *Scene) progressNames(ctx context.Context, said string) error {
	for _, phase := range []string{"spread: ", "switch: ", "reissue: ", "forget: ", "steady: done"} {
		if !strings.Contains(said, phase) {
			return fmt.Errorf("the progress does not tell of %q:\n%s", phase, said)
		}
	}
	proxies, err := sc.Pods(ctx, manifests.Namespace, "app=ztunnel")
	if err != nil {
		return err
	}
	for _, p := range proxies {
		for _, does := range []string{"trusts both", "has only new certificates", "trusts only the new root"} {
			if want := "node " + p.Spec.NodeName + ": ztunnel istio-system/" + p.Name + " " + does; !strings.Contains(said, want) {
				return fmt.Errorf("the progress does not say %q:\n%s", want, said)
			}
		}
	}
	return nil
}

// onlyTheNewRoot looks that a certificate of the old root is refused, and one of
// the new root is not.
func (sc *Scene) onlyTheNewRoot(ctx context.Context, host string, fresh, old authority) error {
	if fresh.cert.Equal(old.cert) {
		return errors.New("the root is the old one")
	}
	for _, row := range []struct {
		by       authority
		admitted bool
	}{{fresh, true}, {old, false}} {
		c, err := row.by.issue(Identity(sc.NS, "client"), time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
		if err != nil {
			return err
		}
		if err := sc.knock(ctx, address(host, 15008), []tls.Certificate{c}, row.admitted); err != nil {
			return fmt.Errorf("after the rotation: %w", err)
		}
	}
	if err := Soon(ctx, func(ctx context.Context) error {
		a, err := authorityStatus(ctx)
		if err != nil {
			return err
		}
		return only(a, certs.Fingerprint(fresh.cert))
	}); err != nil {
		return err
	}
	return sc.complained(ctx, "signed by a CA that is not ours")
}

// TestARevokedCertificateIsCutWithinSecondsAndRefused: a client with a stolen
// certificate has a tunnel, which ends when the certificate is taken back;
// nobody else's does. It can be given back.
func TestARevokedCertificateIsCutWithinSecondsAndRefused(t *testing.T) {
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		held := sc.Begin(ctx, "client", "hold", "--duration", "15s", address(hosts[0], tcpPort))
		if err := sc.revokedIsCut(ctx, hosts[0]); err != nil {
			return err
		}
		if err := held.EndOK(); err != nil {
			return fmt.Errorf("a bystander: %w", err)
		}
		return nil
	})
}

// revokedIsCut takes a certificate back while somebody has a tunnel with it, and
// gives it back.
func (sc *Scene) revokedIsCut(ctx context.Context, host string) error {
	mine, err := sc.realAuthority(ctx)
	if err != nil {
		return err
	}
	stolen, err := mine.issue(Identity(sc.NS, "client"), time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	leaf, err := leafOf(stolen)
	if err != nil {
		return err
	}
	sc.Undo(func(ctx context.Context) error { _, err := sc.Ambit(ctx, "ca", "revoke", "--clear"); return err })
	ended, err := sc.intrude(ctx, address(host, 15008), stolen)
	if err != nil {
		return err
	}
	began := time.Now()
	if _, err := sc.Ambit(ctx, "ca", "revoke", leaf.SerialNumber.String()); err != nil {
		return err
	}
	select {
	case <-ended:
		sc.Figure("revoked tunnel", "ended after %s, the command included", time.Since(began).Round(10*time.Millisecond))
	case <-time.After(8 * time.Second): // it would end by itself after 10 s without a request
		return errors.New("the tunnel of a revoked certificate goes on")
	}
	if err := sc.knock(ctx, address(host, 15008), []tls.Certificate{stolen}, false); err != nil {
		return fmt.Errorf("revoked: %w", err)
	}
	if err := sc.complained(ctx, "certificate revoked"); err != nil {
		return err
	}
	if _, err := sc.Ambit(ctx, "ca", "revoke", "--clear"); err != nil {
		return err
	}
	return Soon(ctx, func(ctx context.Context) error {
		return sc.knock(ctx, address(host, 15008), []tls.Certificate{stolen}, true)
	})
}

func leafOf(c tls.Certificate) (*x509.Certificate, error) {
	return x509.ParseCertificate(c.Certificate[0])
}

// intrude makes a tunnel from the first node and tells when it ends.
func (sc *Scene) intrude(ctx context.Context, to string, c tls.Certificate) (ended chan struct{}, err error) {
	conn, err := sc.dialFromNode(ctx, to)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{c}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13})
	_, err = tc.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	if err == nil {
		_, err = io.ReadFull(tc, make([]byte, 9))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the stolen certificate is not accepted: %w", err), conn.Close())
	}
	ended = make(chan struct{})
	go func(c net.Conn) {
		defer close(ended)
		defer c.Close()
		_, _ = io.Copy(io.Discard, tc) // it is its end that is waited for
	}(conn)
	return ended, nil
}
