// Package heard owns one question of node agents to the control plane, and its
// form on the wire: has every proxy acknowledged the mesh with an object in
// this version? A pod is let go of only when its peers know that it goes.
//
// It refuses to answer, which istiod-lite does, and to tell anything else about
// the mesh, so that it can be asked without a secret. cni/agent asks.
package heard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Path takes a POST of a Version as JSON: 200 every proxy has it, 202 not yet.
const Path = "/heard"

// MaxBody bounds a question.
const MaxBody = 4 << 10

// Version is one version of an object, as its API wrote it.
type Version struct {
	APIVersion      string `json:"apiVersion"`
	Kind            string `json:"kind"`
	Namespace       string `json:"namespace,omitempty"`
	Name            string `json:"name"`
	ResourceVersion string `json:"resourceVersion"`
}

// Ask asks one replica of the control plane at host:port.
func Ask(ctx context.Context, address string, v Version) (bool, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return false, fmt.Errorf("encoding a version: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+Path, bytes.NewReader(b))
	if err != nil {
		return false, fmt.Errorf("asking %s: %w", address, err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return false, fmt.Errorf("asking what proxies have acknowledged: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 512))
	switch {
	case err != nil:
		return false, fmt.Errorf("asking %s what proxies have acknowledged: %w", address, err)
	case answer.StatusCode == http.StatusOK:
		return true, nil
	case answer.StatusCode == http.StatusAccepted:
		return false, nil
	}
	return false, fmt.Errorf("asking %s what proxies have acknowledged: %s: %s", address, answer.Status, strings.TrimSpace(string(text)))
}
