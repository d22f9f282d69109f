//go:build e2e

package suite

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/ambit/command"
	"github.com/ambit-mesh/ambit/ambit/doctor"
	"github.com/ambit-mesh/ambit/ambit/install"
	"github.com/ambit-mesh/ambit/e2e/stage"
	"github.com/ambit-mesh/ambit/manifests"
)

// plant is one fault: how it gets there, what `ambit check` must find and how
// it goes away again.
type plant struct {
	fault string
	do    func(context.Context) error
	undo  func(context.Context) error
	// check and detail are the beginning of the finding's name, and a part of
	// what it says.
	check, detail string
	// stays marks a finding that is about the past, and so outlives its cause, or
	// whose cause the next plant takes over.
	stays bool
}

// TestTheCheckNamesEachFaultAndItsFix: faults are planted one after the other,
// found by `ambit check`, and undone.
func TestTheCheckNamesEachFaultAndItsFix(t *testing.T) {
	onOurNodes(t)
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		if _, err := sc.inMesh(ctx, true); err != nil {
			return err
		}
		if err := Soon(ctx, sc.noFault); err != nil {
			return fmt.Errorf("before any fault: %w", err)
		}
		plants, err := sc.plants(ctx)
		if err != nil {
			return err
		}
		sc.Cuts() // a proxy that is away or cannot be reached is among the faults
		for _, p := range plants {
			began := time.Now()
			if err := sc.found(ctx, p); err != nil {
				return fmt.Errorf("%s: %w", p.fault, err)
			}
			sc.t.Logf("%s: found and undone after %s", p.fault, time.Since(began).Round(100*time.Millisecond))
		}
		return Soon(ctx, sc.noFault)
	})
}

// found plants a fault, looks for it, takes it away and looks again.
func (sc *Scene) found(ctx context.Context, p plant) error {
	undone := false
	undo := func(ctx context.Context) error {
		if undone {
			return nil
		}
		undone = true
		return p.undo(ctx)
	}
	sc.Undo(undo)
	if err := p.do(ctx); err != nil {
		return fmt.Errorf("planting: %w", err)
	}
	if err := Soon(ctx, func(ctx context.Context) error {
		f, err := sc.finding(ctx, p)
		if err == nil && (f == nil || f.Fix == "") {
			err = fmt.Errorf("no finding %q with %q and a fix: %s", p.check, p.detail, sc.lastFindings)
		}
		return err
	}); err != nil {
		return err
	}
	if err := undo(ctx); err != nil {
		return fmt.Errorf("undoing: %w", err)
	}
	if p.stays {
		return nil
	}
	return stage.Within(ctx, time.Minute, func(ctx context.Context) error {
		f, err := sc.finding(ctx, p)
		if err == nil && f != nil {
			err = fmt.Errorf("still found after it was undone: %+v", f)
		}
		return err
	})
}

// findings is what `ambit check` says of this scene, but what is well.
func (sc *Scene) findings(ctx context.Context) ([]doctor.Finding, error) {
	var out, complaint bytes.Buffer
	code := command.Run(ctx, []string{"check", "-n", sc.NS, "-o", "json", "--kubeconfig", kubeconfig()}, "e2e", &out, &complaint)
	if code != 0 && code != command.ExitUnhealthy {
		return nil, fmt.Errorf("ambit check: exit code %d: %s", code, complaint.String())
	}
	var all, bad []doctor.Finding
	if err := json.Unmarshal(out.Bytes(), &all); err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.Level != doctor.OK {
			bad = append(bad, f)
		}
	}
	sc.lastFindings = fmt.Sprintf("%+v", bad)
	if doctor.Failed(all) != (code == command.ExitUnhealthy) {
		return nil, fmt.Errorf("ambit check: exit code %d for %s", code, sc.lastFindings)
	}
	return bad, nil
}

func (sc *Scene) finding(ctx context.Context, p plant) (*doctor.Finding, error) {
	all, err := sc.findings(ctx)
	err = errors.Join(err, ctx.Err()) // what could not be looked at proves nothing
	for i, f := range all {
		if strings.HasPrefix(f.Check, p.check) && strings.Contains(f.Detail, p.detail) {
			return &all[i], err
		}
	}
	return nil, err
}

// noFault is an error if the check fails.
func (sc *Scene) noFault(ctx context.Context) error {
	all, err := sc.findings(ctx)
	if err == nil && doctor.Failed(all) {
		err = fmt.Errorf("ambit check finds %s", sc.lastFindings)
	}
	return err
}

// plants are the faults, those first that follow each other fastest.
func (sc *Scene) plants(ctx context.Context) ([]plant, error) {
	first, err1 := sc.Node(ctx, 1)
	second, err2 := sc.Node(ctx, 2)
	ip, _, err3 := sc.IPs(ctx, "server")
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	serverNS, err1 := netnsWith(ctx, sc.Stage, ip)
	machine, err2 := sc.machine(ctx, second)
	expired, err3 := signing(-2*time.Hour, -time.Hour)
	other, err4 := signing(-time.Hour, 24*time.Hour)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	other["ca-key.pem"] = expired["ca-key.pem"] // which is not its own, so that nobody signs with it
	stranger := sc.authz("stranger", "  action: DENY\n  rules: [{from: [{source: {principals: [other.example/ns/a/sa/b]}}]}]\n")
	return []plant{
		{
			fault: "15008 blocked between nodes", check: "tunnel " + first + " → " + second, detail: "port 15008 is blocked",
			do: func(ctx context.Context) error {
				_, err := inNetns(ctx, machine, "nft", "table inet blocked { chain f { type filter hook forward priority 0; tcp dport 15008 drop; }; }")
				return err
			},
			undo: func(ctx context.Context) error {
				_, err := inNetns(ctx, machine, "nft", "delete table inet blocked")
				return err
			},
		},
		{
			fault: "rules missing in a pod", check: "rules of " + sc.NS + "/server", detail: "missing or changed and are mended", stays: true,
			do:   func(ctx context.Context) error { return deleteRules(ctx, serverNS) },
			undo: func(context.Context) error { return nil }, // the agent has
		},
		{
			fault: "kernel too old for a feature", check: "node " + first, detail: "cannot hand over queued connections",
			do: func(ctx context.Context) error {
				_, err := sc.Reach.Client.CoreV1().Nodes().Patch(ctx, first, types.MergePatchType, []byte(`{"status":{"nodeInfo":{"kernelVersion":"5.10.0-21"}}}`), metav1.PatchOptions{}, "status")
				return err
			},
			undo: func(context.Context) error { return nil }, // the kubelet does
		},
		{
			fault: "wrong trust domain", check: "trust domain", detail: "policy " + sc.NS + "/stranger names principals of trust domain \"other.example\"",
			do:   func(ctx context.Context) error { return sc.Apply(ctx, stranger) },
			undo: func(ctx context.Context) error { return sc.Delete(ctx, stranger) },
		},
		{
			fault: "expired root", check: "root certificate", detail: "the signing certificate of Secret cacerts expired",
			do: sc.plugIn(expired), undo: sc.plugOut,
		},
		{
			fault: "two roots out of step", check: "roots", detail: "are trusted by: Secret cacerts",
			do: sc.plugIn(other), undo: sc.plugOut,
		},
		{
			fault: "RBAC denied", check: "rights of istio-system/istio-cni", detail: "watch pods",
			do: func(ctx context.Context) error {
				return sc.Reach.Client.RbacV1().ClusterRoleBindings().Delete(ctx, "ambit-cni", metav1.DeleteOptions{})
			},
			undo: func(ctx context.Context) error { return sc.Apply(ctx, agentBinding) },
		},
		{
			fault: "webhook denied", check: "admission", detail: "nobody.ambit.dev",
			do: func(ctx context.Context) error { return sc.Apply(ctx, deadWebhook) },
			undo: func(ctx context.Context) error {
				return sc.Reach.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete(ctx, "ambit-test-nobody", metav1.DeleteOptions{})
			},
		},
		sc.definitionMissing(),
		{
			fault: "DNS proxy port taken", check: "DNS proxy of " + sc.NS + "/dnsmasq", detail: "15053",
			// It has the port before it joins: in a pod of the mesh ztunnel has it first.
			do: func(ctx context.Context) error {
				p := Pod{Name: "dnsmasq", Labels: map[string]string{modeLabel: "none"}, Args: []string{"serve", "--tcp", "9000,15053"}}
				return errors.Join(sc.Start(ctx, p), sc.LabelPod(ctx, sc.NS, "dnsmasq", modeLabel, ""))
			},
			undo: func(ctx context.Context) error {
				return sc.Reach.Client.CoreV1().Pods(sc.NS).Delete(ctx, "dnsmasq", metav1.DeleteOptions{})
			},
		},
		{
			fault: "token audience wrong", check: "token audience", detail: `DaemonSet ztunnel has tokens for "nobody"`,
			do:   func(ctx context.Context) error { return sc.audience(ctx, "nobody") },
			undo: func(ctx context.Context) error { return errors.Join(sc.audience(ctx, "istio-ca"), sc.allReady(ctx)) },
		},
		{
			fault: "ztunnel missing on a node", check: "ztunnel on " + second, detail: "none runs there",
			do:   func(ctx context.Context) error { return sc.keepOff(ctx, "ztunnel", second) },
			undo: func(ctx context.Context) error { return errors.Join(sc.keepOff(ctx, "ztunnel", ""), sc.allReady(ctx)) },
		},
		{
			fault: "agent missing on a node", check: "node agent on " + second, detail: "none runs there", stays: true,
			do: func(ctx context.Context) error {
				sc.Undo(func(ctx context.Context) error {
					return errors.Join(sc.keepOff(ctx, "istio-cni-node", ""), sc.allReady(ctx))
				})
				return sc.keepOff(ctx, "istio-cni-node", second)
			},
			undo: func(context.Context) error { return nil }, // the next one needs it too
		},
		{
			fault: "pod stuck waiting for the agent", check: "pod " + sc.NS + "/late", detail: "waits for the node agent on " + second,
			do: func(ctx context.Context) error { return sc.Create(ctx, Pod{Name: "late", Node: 2}) },
			undo: func(ctx context.Context) error {
				return errors.Join(sc.keepOff(ctx, "istio-cni-node", ""), sc.allReady(ctx), sc.BecomesReady(ctx, sc.NS, "late"))
			},
		},
		{
			// Last, since the kubelet takes its time to call the node Ready again.
			fault: "plugin not in the conflist", check: "plugin on " + second, detail: "is not in the node's CNI configuration",
			do: func(context.Context) error { return sc.moveNetworks(machine, "/etc/cni/net.d", "/etc/cni/away") },
			undo: func(ctx context.Context) error {
				return errors.Join(sc.moveNetworks(machine, "/etc/cni/away", "/etc/cni/net.d"), sc.nodeReady(ctx, second))
			},
		},
	}, nil
}

// nodeReady waits until a node is called Ready again.
func (sc *Scene) nodeReady(ctx context.Context, name string) error {
	return stage.Within(ctx, 2*time.Minute, func(ctx context.Context) error {
		n, err := sc.Reach.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
				return fmt.Errorf("node %s is not Ready: %s", name, c.Message)
			}
		}
		return nil
	})
}

// machine is the process of a node, whose namespaces and files are the node's.
func (sc *Scene) machine(ctx context.Context, node string) (int, error) {
	status, err := sc.Cluster.Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, m := range status.Machines {
		if m.Name == node {
			return m.PID, nil
		}
	}
	return 0, fmt.Errorf("no machine is node %s", node)
}

// deleteRules takes the mesh's tables out of a network namespace.
func deleteRules(ctx context.Context, pid int) error {
	tables, err := inNetns(ctx, pid, "nft", "list", "tables")
	if err != nil {
		return err
	}
	deleted := 0
	for line := range strings.Lines(tables) {
		if !strings.Contains(line, "istio") && !strings.Contains(line, "ambit") {
			continue
		}
		if _, err := inNetns(ctx, pid, "nft", "delete "+strings.TrimSpace(line)); err != nil {
			return err
		}
		deleted++
	}
	if deleted == 0 {
		return fmt.Errorf("no table of the mesh among %q", tables)
	}
	return nil
}

// moveNetworks moves a node's network configurations from one of its directories
// to another.
func (sc *Scene) moveNetworks(machine int, from, to string) error {
	root := fmt.Sprintf("/proc/%d/root", machine)
	if err := os.MkdirAll(root+to, 0o755); err != nil {
		return err
	}
	files, err := filepath.Glob(root + from + "/*.conflist")
	if err != nil {
		return err
	}
	for _, f := range files {
		// Written, not renamed: containerd passes over a file that appears whole.
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile(filepath.Join(root+to, filepath.Base(f)), text, 0o600), os.Remove(f)); err != nil {
			return err
		}
	}
	return nil
}

// signing makes a CA of its own as the data of Secret cacerts.
func signing(from, until time.Duration) (map[string][]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{Organization: []string{"planted"}},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return map[string][]byte{
		"ca-cert.pem": cert, "root-cert.pem": cert, "cert-chain.pem": cert,
		"ca-key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}, nil
}

// plugIn makes Secret cacerts. The running istiod refuses both that are
// planted: one has expired, and the key of the other is not its own.
func (sc *Scene) plugIn(data map[string][]byte) func(context.Context) error {
	return func(ctx context.Context) error {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "cacerts", Namespace: manifests.Namespace}, Data: data}
		_, err := sc.Reach.Client.CoreV1().Secrets(manifests.Namespace).Create(ctx, s, metav1.CreateOptions{})
		return err
	}
}

func (sc *Scene) plugOut(ctx context.Context) error {
	err := sc.Reach.Client.CoreV1().Secrets(manifests.Namespace).Delete(ctx, "cacerts", metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

const agentBinding = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ambit-cni, labels: {k8s-app: istio-cni-node, app.kubernetes.io/part-of: ambit}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ambit-cni}
subjects: [{kind: ServiceAccount, name: istio-cni, namespace: istio-system}]
`

// deadWebhook is asked about every policy, and nobody answers.
const deadWebhook = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: ambit-test-nobody}
webhooks:
- name: nobody.ambit.dev
  clientConfig: {url: "https://127.0.0.1:1/"}
  rules: [{apiGroups: [security.istio.io], apiVersions: ["*"], operations: [CREATE], resources: [authorizationpolicies]}]
  failurePolicy: Fail
  sideEffects: None
  admissionReviewVersions: [v1]
  timeoutSeconds: 1
`

// definitionMissing takes away a definition of which no other test has objects
// meanwhile.
func (sc *Scene) definitionMissing() plant {
	definitions := sc.Reach.Dynamic.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	const name = "requestauthentications.security.istio.io"
	var body []byte
	return plant{
		fault: "definition missing", check: "definition", detail: "RequestAuthentication is missing",
		do: func(ctx context.Context) error {
			obj, err := definitions.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			for _, field := range []string{"resourceVersion", "uid", "creationTimestamp", "generation", "managedFields", "finalizers"} {
				delete(obj.Object["metadata"].(map[string]any), field)
			}
			delete(obj.Object, "status")
			if body, err = json.Marshal(obj.Object); err != nil {
				return err
			}
			return definitions.Delete(ctx, name, metav1.DeleteOptions{})
		},
		undo: func(ctx context.Context) error {
			// It may still be on its way out.
			return Soon(ctx, func(ctx context.Context) error {
				if err := sc.Apply(ctx, string(body)); err != nil {
					return err
				}
				obj, err := definitions.Get(ctx, name, metav1.GetOptions{})
				if err == nil && obj.GetDeletionTimestamp() != nil {
					err = errors.New("the definition is still being deleted")
				}
				return err
			})
		},
	}
}

// audience changes for whom ztunnels' tokens are made out. The first new ztunnel
// never gets ready, so the old ones stay.
func (sc *Scene) audience(ctx context.Context, to string) error {
	patch := fmt.Appendf(nil, `{"spec":{"template":{"spec":{"volumes":[{"name":"istio-token","projected":{"sources":[{"serviceAccountToken":{"audience":%q,"expirationSeconds":43200,"path":"istio-token"}}]}}]}}}}`, to)
	_, err := sc.Reach.Client.AppsV1().DaemonSets(manifests.Namespace).Patch(ctx, "ztunnel", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}

// keepOff keeps a DaemonSet off a node; an empty node is none.
func (sc *Scene) keepOff(ctx context.Context, set, node string) error {
	affinity := "null"
	if node != "" {
		affinity = fmt.Sprintf(`{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":%q,"operator":"NotIn","values":[%q]}]}]}}}`, corev1.LabelHostname, node)
	}
	patch := fmt.Appendf(nil, `{"spec":{"template":{"spec":{"affinity":%s}}}}`, affinity)
	_, err := sc.Reach.Client.AppsV1().DaemonSets(manifests.Namespace).Patch(ctx, set, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

func (sc *Scene) allReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	return install.WaitReady(ctx, sc.Reach, discard{})
}
