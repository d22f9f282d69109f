//go:build e2e

package suite

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	neturl "net/url"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/e2e/cluster"
	"github.com/ambit-mesh/ambit/manifests"
)

// authority is a CA: the mesh's own, whose key the tests may read, or a false one.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// realAuthority reads the mesh's signing key.
func (sc *Scene) realAuthority(ctx context.Context) (authority, error) {
	s, err := sc.Reach.Client.CoreV1().Secrets(manifests.Namespace).Get(ctx, "istio-ca-secret", metav1.GetOptions{})
	if err != nil {
		return authority{}, err
	}
	return authorityOf(s.Data)
}

// authorityOf reads a signing key as it is in a Secret.
func authorityOf(data map[string][]byte) (authority, error) {
	pair, err := tls.X509KeyPair(data["ca-cert.pem"], data["ca-key.pem"])
	if err != nil {
		return authority{}, fmt.Errorf("reading a signing key: %w", err)
	}
	return authority{cert: pair.Leaf, key: pair.PrivateKey.(crypto.Signer)}, nil
}

func falseAuthority() (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"cluster.local"}}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

// issue signs a workload's certificate that is good until an hour after.
func (a authority) issue(identity string, from, until time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	id, err := neturl.Parse(identity)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: from, NotAfter: until, URIs: []*neturl.URL{id},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// TestFalseClientsAreRefusedWithAClearLine: a false CA, an expired
// certificate, a foreign trust domain, and none at all.
func TestFalseClientsAreRefusedWithAClearLine(t *testing.T) {
	t.Parallel()
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		hosts, err := sc.inMesh(ctx, true)
		if err != nil {
			return err
		}
		mine, err := sc.realAuthority(ctx)
		if err != nil {
			return err
		}
		other, err := falseAuthority()
		if err != nil {
			return err
		}
		now, id := time.Now(), Identity(sc.NS, "client")
		for _, row := range []struct {
			what       string
			by         authority
			identity   string
			until      time.Time
			refused    string
			noIdentity bool
		}{
			{what: "a good certificate", by: mine, identity: id, until: now.Add(time.Hour)},
			{what: "a false CA", by: other, identity: id, until: now.Add(time.Hour), refused: "signed by a CA that is not ours"},
			{what: "an expired certificate", by: mine, identity: id, until: now.Add(-time.Minute), refused: "certificate expired"},
			{what: "a foreign trust domain", by: mine, identity: "spiffe://elsewhere.example/ns/x/sa/y", until: now.Add(time.Hour), refused: "trust domain is elsewhere.example"},
			{what: "no certificate", noIdentity: true, refused: "certificate"},
		} {
			var certs []tls.Certificate
			if !row.noIdentity {
				c, err := row.by.issue(row.identity, now.Add(-2*time.Hour), row.until)
				if err != nil {
					return err
				}
				certs = []tls.Certificate{c}
			}
			if err := sc.knock(ctx, address(hosts[0], 15008), certs, row.refused == ""); err != nil {
				return fmt.Errorf("%s: %w", row.what, err)
			}
			if err := sc.complained(ctx, row.refused); err != nil {
				return fmt.Errorf("%s: %w", row.what, err)
			}
		}
		return nil
	})
}

// knock makes a TLS connection to a pod's HBONE port from the first node. A
// server that accepts it sends its HTTP/2 settings.
func (sc *Scene) knock(ctx context.Context, to string, certs []tls.Certificate, admitted bool) error {
	conn, err := sc.dialFromNode(ctx, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	c := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, Certificates: certs, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13})
	_, err = c.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	if err == nil {
		_, err = c.Read(make([]byte, 9))
	}
	if admitted != (err == nil) {
		return fmt.Errorf("admitted is %v (%v), want %v", err == nil, err, admitted)
	}
	return nil
}

func (sc *Scene) dialFromNode(ctx context.Context, to string) (conn net.Conn, err error) {
	status, err := sc.Cluster.Status(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range status.Machines {
		if len(m.Pods) > 0 {
			err := cluster.InNetns(m.Netns, func() error { conn, err = net.DialTimeout("tcp", to, 5*time.Second); return err })
			return conn, err
		}
	}
	return nil, errors.New("the cluster has no node")
}

// complained waits for a line of a node proxy's log.
func (sc *Scene) complained(ctx context.Context, text string) error {
	if text == "" {
		return nil
	}
	return Soon(ctx, func(ctx context.Context) error {
		pods, err := sc.Pods(ctx, manifests.Namespace, "app=ztunnel")
		if err != nil {
			return err
		}
		for _, p := range pods {
			log, err := sc.Logs(ctx, p.Namespace, p.Name, "istio-proxy", sc.Began)
			if err != nil {
				return err
			}
			for line := range strings.Lines(log) {
				if strings.Contains(line, "not accepted") && strings.Contains(line, text) || strings.Contains(line, "connection failed") && strings.Contains(line, text) {
					return nil
				}
			}
		}
		return fmt.Errorf("no node proxy logged that a peer was refused because of %q", text)
	})
}

// TestAFalseServerIsRefusedWithAClearLine: a pod that claims to be in the mesh
// and shows a certificate of another identity, or of a false CA.
func TestAFalseServerIsRefusedWithAClearLine(t *testing.T) {
	t.Parallel()
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if err := sc.Namespace(ctx, false); err != nil {
			return err
		}
		inMesh := map[string]string{modeLabel: "ambient"}
		if err := sc.Start(ctx, Pod{Name: "client", Node: 1, Labels: inMesh}, Pod{Name: "impostor", Node: 2}); err != nil {
			return err
		}
		if err := sc.claim(ctx, "impostor"); err != nil {
			return err
		}
		host, _, err := sc.IPs(ctx, "impostor")
		if err != nil {
			return err
		}
		mine, err1 := sc.realAuthority(ctx)
		other, err2 := falseAuthority()
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		for _, row := range []struct {
			by       authority
			identity string
			refused  string
		}{
			{mine, Identity(sc.NS, "somebody-else"), "it is not who was asked for"},
			{other, Identity(sc.NS, "impostor"), "signed by a CA that is not ours"},
		} {
			cert, err := row.by.issue(row.identity, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
			if err != nil {
				return err
			}
			if err := sc.lure(ctx, host, cert, row.refused); err != nil {
				return fmt.Errorf("%s: %w", row.identity, err)
			}
		}
		return nil
	})
}

// claim makes a pod look enrolled although nobody enrolled it.
func (sc *Scene) claim(ctx context.Context, pod string) error {
	patch := []byte(`{"metadata":{"annotations":{"ambient.istio.io/redirection":"enabled"},"labels":{"networking.istio.io/tunnel":"http"}}}`)
	_, err := sc.Reach.Client.CoreV1().Pods(sc.NS).Patch(ctx, pod, "application/merge-patch+json", patch, metav1.PatchOptions{})
	return err
}

// lure listens as an impostor in the pod's network namespace and waits until
// the client's proxy has refused it: no call may succeed.
func (sc *Scene) lure(ctx context.Context, host string, cert tls.Certificate, refused string) error {
	pid, err := netnsWith(ctx, sc.Stage, host)
	if err != nil {
		return err
	}
	var l net.Listener
	err = cluster.InNetns(fmt.Sprintf("/proc/%d/ns/net", pid), func() error { l, err = net.Listen("tcp", address(host, 15008)); return err })
	if err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		impersonate(l, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13})
	}()
	defer func() { l.Close(); <-done }()
	return Soon(ctx, func(ctx context.Context) error {
		err := sc.Fails(ctx, "client", "get", "--timeout", "3s", url(host, httpPort))
		return errors.Join(err, sc.logged(ctx, refused))
	})
}

// impersonate shakes hands with whoever comes, until the listener closes.
func impersonate(l net.Listener, cfg *tls.Config) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_ = tls.Server(c, cfg).Handshake() // the other side is what is looked at
		c.Close()
	}
}

func (sc *Scene) logged(ctx context.Context, text string) error {
	records, err := sc.AccessLog(ctx, sc.Began)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.Direction == "outbound" && strings.Contains(r.Error+r.Reason, text) {
			return nil
		}
	}
	return fmt.Errorf("none of %d access records says %q", len(records), text)
}
