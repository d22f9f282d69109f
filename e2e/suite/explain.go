package suite

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/manifests"
)

// linesShown bounds what is shown of each log.
const linesShown = 25

// explain shows what a broken promise may be understood by.
func (sc *Scene) explain() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var b strings.Builder
	for _, ns := range append([]string{sc.NS}, sc.extra...) {
		pods, err := sc.Pods(ctx, ns, "")
		if err != nil {
			fmt.Fprintf(&b, "pods of %s: %v\n", ns, err)
		}
		for _, p := range pods {
			fmt.Fprintf(&b, "pod %s/%s on %s: %s %v %s\n", ns, p.Name, p.Spec.NodeName, p.Status.Phase, p.Status.PodIPs, p.Annotations["ambient.istio.io/redirection"])
		}
	}
	for container, label := range map[string]string{"istio-proxy": "app=ztunnel", "install-cni": "k8s-app=istio-cni-node", "discovery": "app=istiod"} {
		pods, err := sc.Pods(ctx, manifests.Namespace, label)
		if err != nil {
			fmt.Fprintf(&b, "pods of %s: %v\n", label, err)
		}
		for _, p := range pods {
			text, err := sc.Logs(ctx, p.Namespace, p.Name, container, sc.Began)
			fmt.Fprintf(&b, "--- %s on %s (%v)\n%s\n", p.Name, p.Spec.NodeName, err, lastLines(text))
		}
	}
	sc.t.Logf("what can be seen:\n%s", b.String())
}

func lastLines(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-linesShown):], "\n")
}
