package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// answers waits until the server is ready, or one of the processes has ended.
func (s *Server) answers(ctx context.Context, port int, token string) error {
	var last error
	for {
		if last = s.ask(ctx, port, token); last == nil {
			return nil
		}
		for _, p := range s.processes {
			select {
			case <-p.done:
				return fmt.Errorf("%s ended: %s", p.name, lastWords(p.log.Name()))
			default:
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the API server does not become ready: %w", last)
		}
	}
}

func (s *Server) ask(ctx context.Context, port int, token string) error {
	pem, err := os.ReadFile(s.root())
	if err != nil {
		return err // it has not made it yet
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/readyz", port), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	t := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer t.CloseIdleConnections()
	resp, err := (&http.Client{Transport: t, Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}

// root is the certificate that the server makes for itself.
func (s *Server) root() string { return filepath.Join(s.cfg.Dir, "certs", "apiserver.crt") }

// lastWords is the end of a log.
func lastWords(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-1000):])
}

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: alone, cluster: {server: "https://127.0.0.1:%d", certificate-authority: %q}}]
users: [{name: admin, user: {token: %s}}]
contexts: [{name: alone, context: {cluster: alone, user: admin}}]
current-context: alone
`

func (s *Server) writeKubeconfig(port int, token string) error {
	return os.WriteFile(s.Kubeconfig, fmt.Appendf(nil, kubeconfig, port, s.root(), token), 0o600)
}
