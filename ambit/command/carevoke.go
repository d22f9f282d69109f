package command

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/ambit/reach"
	"github.com/ambit-mesh/ambit/manifests"
)

// revocationsKey is where the list of revoked certificates is, beside the key
// that has signed it.
const revocationsKey = "ca-crl.pem"

func (g *global) caRevokeCommand() *cobra.Command {
	clearAll := false
	c := &cobra.Command{
		Use:   "revoke SERIAL...",
		Short: "Take certificates back: tunnels to who has them end within seconds, and no new ones are made",
		Long: `revoke signs a list of revoked certificates with the mesh's own root and adds the
serial numbers (as ambit ztunnel certificates shows them; 0x before hexadecimal
ones) to it. It is
for a certificate that fell into other hands: a proxy of the mesh whose own is
taken back asks for another at once. Where the authority is plugged in, its owner
makes the list: key ca-crl.pem of Secret cacerts.`,
		Args: func(c *cobra.Command, args []string) error {
			if clearAll == (len(args) > 0) {
				return usageError{fmt.Errorf("%s takes serial numbers, or --clear (see: %s --help)", c.CommandPath(), c.CommandPath())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			cluster, err := g.open(g.kubeconfig, g.context)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), 30*time.Second, errors.New("no answer within 30 s"))
			defer cancel()
			n, err := revoke(ctx, cluster, args)
			if err == nil {
				fmt.Fprintf(c.OutOrStdout(), "%d certificates are revoked\n", n)
			}
			return err
		},
	}
	c.Flags().BoolVar(&clearAll, "clear", false, "revoke none any longer")
	return c
}

// revoke adds to the list beside the mesh's own key; no serials clear it.
func revoke(ctx context.Context, cluster *reach.Cluster, serials []string) (int, error) {
	api := cluster.Client.CoreV1().Secrets(manifests.Namespace)
	s, err := api.Get(ctx, ownRootSecret, metav1.GetOptions{})
	if err != nil {
		return 0, fmt.Errorf("reading the mesh's own root (is the authority plugged in?): %w", err)
	}
	list, n := []byte{}, 0
	if len(serials) > 0 {
		if list, n, err = revoked(s.Data, serials, time.Now()); err != nil {
			return 0, err
		}
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"resourceVersion": s.ResourceVersion}, "data": map[string][]byte{revocationsKey: list},
	})
	if err != nil {
		return 0, err
	}
	if _, err := api.Patch(ctx, ownRootSecret, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return 0, fmt.Errorf("writing the list of revoked certificates: %w", err)
	}
	return n, nil
}

// revoked signs a list of those that were revoked before and of some more.
func revoked(data map[string][]byte, serials []string, now time.Time) ([]byte, int, error) {
	certificate, key, err := signer(data)
	if err != nil {
		return nil, 0, fmt.Errorf("reading the mesh's own root: %w", err)
	}
	list := &x509.RevocationList{Number: big.NewInt(now.Unix()), ThisUpdate: now, NextUpdate: certificate.NotAfter}
	if block, _ := pem.Decode(data[revocationsKey]); block != nil {
		old, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, 0, fmt.Errorf("reading the list of revoked certificates: %w", err)
		}
		if bytes.Equal(old.AuthorityKeyId, certificate.SubjectKeyId) {
			list.RevokedCertificateEntries = old.RevokedCertificateEntries
		}
	}
	for _, text := range serials {
		serial, ok := new(big.Int).SetString(text, 0)
		if !ok {
			return nil, 0, usageError{fmt.Errorf("serial number %q is no number", text)}
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: now})
	}
	issuer := *certificate
	issuer.KeyUsage |= x509.KeyUsageCRLSign // x509 insists; proxies do not
	der, err := x509.CreateRevocationList(rand.Reader, list, &issuer, key)
	if err != nil {
		return nil, 0, fmt.Errorf("signing the list of revoked certificates: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), len(list.RevokedCertificateEntries), nil
}

// signer reads the root and its key.
func signer(data map[string][]byte) (*x509.Certificate, crypto.Signer, error) {
	certificate, _ := pem.Decode(data["ca-cert.pem"])
	secret, _ := pem.Decode(data["ca-key.pem"])
	if certificate == nil || secret == nil {
		return nil, nil, errors.New("it holds no certificate or no key")
	}
	c, err := x509.ParseCertificate(certificate.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(secret.Bytes)
	if err != nil {
		return nil, nil, errors.New("its key cannot be read") // never a word of the key
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("a %T cannot sign", key)
	}
	return c, s, nil
}
